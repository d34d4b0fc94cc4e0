"""A layer that solves a differential equation from time 0 to 1, with torchdiffeq (https://arxiv.org/abs/1806.07366)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from algorithms.ode import exact
from algorithms.ode.solver import Solvers
from algorithms.ode.watch import END, State, Trace, Watch


@final
class Flow(nn.Module):
    """Takes the state at time 0 to that at time 1 along a field: a module of time and state that returns a state."""

    def __init__(self, field: nn.Module, solvers: Solvers, name: str) -> None:
        super().__init__()
        self.field, self.solvers, self.name = field, solvers, name
        self.log: list[Trace] | None = None  # set by views.recorded, for as long as it lasts

    def forward(self, *state: Tensor) -> State:
        """The state at the end. Raises Unfinished if an adaptive solver does not get there."""
        if state[0].is_meta:  # shapes without values: there is no error to choose steps by
            return derivative(self.field, state)
        solver = self.solvers.training if self.training else self.solvers.prediction
        watch = Watch(self.field, solver, self.name)
        end = integrate(watch, state)
        if self.log is not None:
            self.log.append(watch.trace())
        return end


def derivative(field: nn.Module, state: State) -> State:
    """The field at time 0."""
    rates: State = field(state[0].new_zeros(()), state)
    return rates


def integrate(watch: Watch, state: State) -> State:
    """The state at the end, with the solver and the gradient that `watch` names."""
    with torch.inference_mode(mode=False):  # or its constants, made when it is imported, would stop gradients
        import torchdiffeq  # noqa: PLC0415 - takes a second, for which only those who use it wait

    solver = watch.solver
    if solver.adaptive and solver.gradient == "exact":
        return exact.integrate(watch, state)
    grid = torch.linspace(0, END, 2 if solver.adaptive else solver.steps + 1, dtype=state[0].dtype)
    arguments: dict[str, Any] = {"method": solver.method, "rtol": solver.tolerance, "atol": solver.tolerance}
    if solver.gradient == "adjoint":
        parameters = tuple(watch.field.parameters()) if isinstance(watch.field, nn.Module) else ()
        solution = torchdiffeq.odeint_adjoint(
            watch, state, grid.to(state[0].device), adjoint_params=parameters, **arguments
        )
    else:
        solution = torchdiffeq.odeint(watch, state, grid.to(state[0].device), **arguments)
    return tuple(part[-1] for part in solution)
