"""Antisymmetric minus gamma I: eigenvalues on the line Re = -gamma, the form below Theorem 1 of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from algorithms import checks
from algorithms.control import square
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class Antisymmetric(Constraint):
    """Weights with theta + theta^T = -2 gamma I: square matrices, or kernels of odd size between equal channels.

    The paper writes theta = K - K^T - gamma I and penalises K; its step is then four times this one's, in the same
    direction. `dissipative` allows more and gives the same sign of the eigenvalues.
    """

    gamma: float = 0.01  # minus the real part of every eigenvalue

    def __post_init__(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        checks.at_least("gamma", self.gamma, 0, "minus the real part of every eigenvalue")

    @property
    def limit(self) -> float:
        """The set has no inside: 0."""
        return 0.0

    def measure(self, theta: Tensor) -> float:
        """The largest entry of theta + theta^T + 2 gamma I."""
        fixed = theta.detach()
        return float((fixed + square.adjoint(fixed) + 2 * self.gamma * square.identity(fixed)).abs().max())

    def project(self, theta: Tensor) -> Tensor:
        """The antisymmetric part, minus gamma I."""
        return (theta - square.adjoint(theta)) / 2 - self.gamma * square.identity(theta)
