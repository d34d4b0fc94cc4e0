"""Spectral norm at most a bound by the semidefinite program of Theorem 4: the paper's way, slow, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from algorithms import checks
from algorithms.control import clipping, sdp
from algorithms.control.constraints import Constraint, SolverError
from algorithms.control.sdp import Solver


@final
@dataclass(frozen=True, kw_only=True)
class Semidefinite(Constraint):
    """The set and, up to a solver's precision, the point of `spectral_norm`, at 70 to 150,000 times its price.

    What the solver returns is scaled where it exceeds the bound by its tolerance. Where it fails, or the matrix is
    larger than `largest`, an update takes the closed form and notes it.
    """

    bound: float = 1.0  # largest singular value
    solver: Solver = "clarabel"
    largest: int = 64  # rows and columns together of the largest matrix that a solver is given

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("bound", self.bound, 1e-6, "the largest singular value")
        checks.at_least("largest", self.largest, 2, "rows and columns together")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def measure(self, theta: Tensor) -> float:
        """The largest singular value."""
        return float(clipping.norm(clipping.matrix(theta)))

    def project(self, theta: Tensor) -> Tensor:
        """The solver's maximiser of -|X - theta|^2, that is of <2 theta, X> - |X|^2. Raises SolverError."""
        free = clipping.matrix(theta)
        if self.measure(theta) <= self.bound:
            return theta
        if sum(free.shape) > self.largest:
            size = f"{free.shape[0]}x{free.shape[1]}"
            raise SolverError(f"a matrix of {size} is too large for {self.solver} (largest = {self.largest})")
        found = sdp.solve(sdp.Hamiltonian(2 * free, free, 1.0, 0.0), self.bound, self.solver)
        scale = clipping.inside(found, self.bound) / max(float(clipping.norm(found)), self.bound)
        return (found * min(1.0, scale)).reshape(theta.shape)

    def closed_form(self, theta: Tensor) -> Tensor:
        """By clipping singular values."""
        return clipping.clip(clipping.matrix(theta), self.bound).reshape(theta.shape)
