"""Frobenius norm at most a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from algorithms import checks
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class Frobenius(Constraint):
    """A ball around zero: weights outside are scaled. It bounds the spectral norm too, and costs next to nothing."""

    bound: float = 1.0  # root of the sum of the squares of all entries

    def __post_init__(self) -> None:
        """Raises ValueError for a bound that leaves no weights."""
        checks.at_least("bound", self.bound, 1e-6, "the root of the sum of squares")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def measure(self, theta: Tensor) -> float:
        """The root of the sum of squares."""
        return float(theta.detach().double().norm())

    def project(self, theta: Tensor) -> Tensor:
        """The weights, shorter."""
        norm = self.measure(theta)
        if norm <= self.bound:
            return theta
        return theta * (self.bound / norm * (1 - torch.finfo(theta.dtype).eps))
