"""Spectral norm at most a bound: the condition that Theorem 4 of the paper enforces, by clipping singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from algorithms import checks
from algorithms.control import clipping
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class SpectralNorm(Constraint):
    """Cuts the singular values. A kernel is taken as the paper takes it, as the matrix outputs x (inputs x positions).

    With a k x k kernel this leaves the norm of the convolution anywhere between the bound and k times the bound;
    `convolution` bounds the operator itself.
    """

    bound: float = 1.0  # largest singular value

    def __post_init__(self) -> None:
        """Raises ValueError for a bound that leaves no weights."""
        checks.at_least("bound", self.bound, 1e-6, "the largest singular value")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def measure(self, theta: Tensor) -> float:
        """The largest singular value."""
        return float(clipping.norm(clipping.matrix(theta)))

    def project(self, theta: Tensor) -> Tensor:
        """U min(S, bound) V^T."""
        return clipping.clip(clipping.matrix(theta), self.bound).reshape(theta.shape)
