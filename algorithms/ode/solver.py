"""How an ODE block is solved and how its gradient is taken. The solvers are torchdiffeq's, by its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from algorithms import checks

Method = Literal["euler", "rk4", "adaptive_heun", "bosh3", "dopri5"]
Gradient = Literal["direct", "adjoint", "exact"]

FIXED = ("euler", "rk4")  # as many equal steps as one asks for; the others choose their steps by the error


@final
@dataclass(frozen=True, kw_only=True)
class Solver:
    """A solver and its precision.

    An adaptive solver chooses one sequence of steps for a whole batch, so an image's logits depend on the images beside
    it. A fixed one does not couple them.
    """

    method: Method = "rk4"  # euler and rk4 (the 3/8 rule) take equal steps; adaptive_heun, bosh3 and dopri5 adapt them
    steps: int = 1  # of a fixed method; the published experiments take one
    tolerance: float = 0.1  # of an adaptive method, relative and absolute alike
    max_steps: int = 1000  # attempts of an adaptive method after which it gives up
    gradient: Gradient = "direct"  # through the solver's operations; by the adjoint equation; through step sizes too

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of equal steps")
        checks.between("tolerance", self.tolerance, 1e-12, 10, "the error that a step may make")
        checks.at_least("max_steps", self.max_steps, 1, "a number of steps")

    @property
    def adaptive(self) -> bool:
        """Whether steps follow the error."""
        return self.method not in FIXED

    def __str__(self) -> str:
        """In a few words: `rk4 with 4 steps`, `dopri5 at tolerance 0.1`."""
        if self.adaptive:
            return f"{self.method} at tolerance {self.tolerance:g}"
        return f"{self.method} with {self.steps} step{'s' * (self.steps > 1)}"


class Solvers(NamedTuple):
    """Which solver when."""

    training: Solver
    prediction: Solver  # in evaluation mode, in which a network is attacked too


def solvers(training: Solver, prediction: Solver | None) -> Solvers:
    """A solver for training and one for evaluation mode, by default the same."""
    return Solvers(training, prediction or training)
