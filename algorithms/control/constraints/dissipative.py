"""Symmetric part at most -gamma I: x' = theta x then shrinks the l2 norm at a rate of gamma or more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from algorithms import checks
from algorithms.control import square
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class Dissipative(Constraint):
    """Square matrices with x^T theta x <= -gamma |x|^2 for every x, so that no eigenvalue has a real part above -gamma.

    The matrices with such eigenvalues alone are no convex set; this is a convex part of them.
    """

    gamma: float = 0.0  # minus the largest eigenvalue of the symmetric part

    def __post_init__(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        checks.at_least("gamma", self.gamma, 0, "minus the largest eigenvalue of the symmetric part")

    @property
    def limit(self) -> float:
        """-gamma."""
        return -self.gamma

    def measure(self, theta: Tensor) -> float:
        """The largest eigenvalue of the symmetric part."""
        return float(torch.linalg.eigvalsh(_halves(theta.detach())[0])[-1])

    def project(self, theta: Tensor) -> Tensor:
        """Q min(L, -gamma) Q^T + the antisymmetric part, where Q L Q^T is the symmetric part."""
        symmetric, rest = _halves(theta)
        values, vectors = torch.linalg.eigh(symmetric)
        if values[-1] <= -self.gamma:
            return theta
        rounding = torch.finfo(theta.dtype).eps * float(theta.norm())
        lowered = vectors * values.clamp(max=-self.gamma - rounding)
        projected: Tensor = lowered @ vectors.mT + rest
        return projected.to(theta.dtype)


def _halves(theta: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric and the antisymmetric part of a square matrix, in double precision."""
    if theta.dim() != 2:
        raise ValueError(f"a square matrix, not a weight of shape {tuple(theta.shape)}")
    exact = theta.double()
    other = square.adjoint(exact)
    return (exact + other) / 2, (exact - other) / 2
