"""Spectral norm kept below a bound by a log-det barrier: the paper's "simple interior point method", in closed form.

The maximiser of H + mu log det(I - theta theta^T / c^2) has the singular vectors of the free maximiser. With s = c t
and w = mu / ((alpha + beta) c^2), each singular value solves the cubic (t - t_free)(1 - t^2) + w t = 0, t in [0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor

from algorithms import checks
from algorithms.control import clipping
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class LogDetBarrier(Constraint):
    """Shrinks every singular value, most where it comes near the bound. With a weight of 0 it is `spectral_norm`.

    It is a maximiser, not a projection: weights inside move too.
    """

    bound: float = 1.0  # what singular values stay below
    weight: float = 0.01  # mu, of the barrier in the Hamiltonian

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("bound", self.bound, 1e-6, "what singular values stay below")
        checks.at_least("weight", self.weight, 0, "the barrier's factor in the Hamiltonian")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def under(self, curvature: float) -> Self:
        """With the weight that has the same effect beside a squared distance of factor 1."""
        return replace(self, weight=self.weight / curvature)

    def measure(self, theta: Tensor) -> float:
        """The largest singular value."""
        return float(clipping.norm(clipping.matrix(theta)))

    def project(self, theta: Tensor) -> Tensor:
        """The maximiser of -||X - theta||^2 + weight log det(I - X X^T / bound^2) over X."""
        free = clipping.matrix(theta)
        cap, relative = clipping.inside(free, 1.0), self.weight / self.bound**2

        def factors(sizes: Tensor) -> Tensor:
            wanted = (sizes / self.bound).clamp(min=1e-12)  # below, the factor no longer changes
            return root(wanted, relative).clamp(max=cap) / wanted

        return clipping.scaled(free.double(), factors).to(theta.dtype).reshape(theta.shape)


def root(wanted: Tensor, weight: float) -> Tensor:
    """The t in [0, 1) with (t - wanted)(1 - t^2) + weight t = 0: the middle one of a cubic's three real roots."""
    p = -(1 + weight) - wanted.square() / 3
    q = wanted - wanted * (1 + weight) / 3 - 2 * wanted**3 / 27
    cosine = (3 * q / (2 * p) * (-3 / p).sqrt()).clamp(-1, 1)
    t = wanted / 3 + 2 * (-p / 3).sqrt() * torch.cos((cosine.acos() - 2 * math.pi) / 3)
    t = t.clamp(0, 1)
    for _ in range(3):  # Newton's steps regain the digits that the formula cancels
        value = (t - wanted) * (1 - t.square()) + weight * t
        slope = 1 - t.square() - 2 * t * (t - wanted) + weight
        t = (t - value / slope).clamp(0, 1)
    return t
