"""Where may a layer's weights be? One file a constraint; each is a frozen dataclass that implements `Constraint`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor


class SolverError(RuntimeError):
    """A numerical solver has not found the projection; the message says which and why."""


class Constraint(ABC):
    """A set of weights. `theta` is a parameter in its own shape: (outputs, inputs), or a kernel of four axes."""

    @property
    @abstractmethod
    def limit(self) -> float:
        """What `measure` is at most, up to rounding, for weights in the set."""

    @abstractmethod
    def measure(self, theta: Tensor) -> float:
        """The number that the constraint limits. Raises ValueError for weights of a shape that has none."""

    @abstractmethod
    def project(self, theta: Tensor) -> Tensor:
        """The point of the set that is nearest to `theta` in the Frobenius norm; `theta` itself if it is in the set.

        Raises ValueError for weights of a wrong shape, and SolverError if a solver fails.
        """

    def under(self, curvature: float) -> Self:
        """The constraint where the squared distance weighs `curvature` = alpha + beta: only a barrier depends on it."""
        return self

    def closed_form(self, theta: Tensor) -> Tensor:
        """What `project` is to give, by a formula: for when its solver has failed."""
        return self.project(theta)
