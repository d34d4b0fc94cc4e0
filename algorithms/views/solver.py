"""A neural ODE's own logits with the gradient that another solver gives (Huang et al. 2021).

https://proceedings.mlr.press/v145/huang22a.html
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from torch import nn

from algorithms import checks
from algorithms.ode import solver as ode
from algorithms.ode.solver import Gradient, Method
from algorithms.ode.views import Guided
from algorithms.views import View


@final
@dataclass(frozen=True, kw_only=True)
class Solver(View):
    """Each ODE block is differentiated as if another solver had solved it; what is not set is the block's own.

    By default the gradient goes through the step sizes of adaptive solvers too.
    """

    method: Method | None = None
    steps: int | None = None  # of a fixed method
    tolerance: float | None = None  # of an adaptive method
    sharper: float = 1.0  # divides the tolerance
    gradient: Gradient = "exact"

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that no solver takes."""
        checks.between("sharper", self.sharper, 1, 1e9, "a divisor of the tolerance")
        self.instead(ode.Solver())

    def see(self, model: nn.Module) -> nn.Module:
        """The model guided by the other solver."""
        return Guided(model, self.instead)

    def instead(self, own: ode.Solver) -> ode.Solver:
        """The solver in place of a block's own."""
        wanted = {"method": self.method, "steps": self.steps, "tolerance": self.tolerance, "gradient": self.gradient}
        given: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        chosen = replace(own, **given)
        return replace(chosen, tolerance=chosen.tolerance / self.sharper)
