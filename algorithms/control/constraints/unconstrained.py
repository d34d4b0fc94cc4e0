"""No constraint: the Hamiltonian's maximiser is then a step of gradient descent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class Unconstrained(Constraint):
    """All weights. For a layer that is to be free where the others are not."""

    @property
    def limit(self) -> float:
        """Infinite."""
        return math.inf

    def measure(self, theta: Tensor) -> float:
        """Nothing is limited: 0."""
        return 0.0

    def project(self, theta: Tensor) -> Tensor:
        """The weights as they are."""
        return theta
