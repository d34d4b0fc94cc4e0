"""Every entry between minus a bound and the bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from algorithms import checks
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class Box(Constraint):
    """Cuts each entry by itself. For the scale of a batch norm, whose gain is its largest entry, this is exact."""

    bound: float = 1.0  # largest absolute value of an entry

    def __post_init__(self) -> None:
        """Raises ValueError for a bound that leaves no weights."""
        checks.at_least("bound", self.bound, 1e-6, "the largest absolute value of an entry")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def measure(self, theta: Tensor) -> float:
        """The largest absolute value."""
        return float(theta.detach().abs().max())

    def project(self, theta: Tensor) -> Tensor:
        """The entries, cut."""
        return theta.clamp(-self.bound, self.bound)
