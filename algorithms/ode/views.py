"""A trained network seen through another solver, and a record of what its solvers do. It stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import nn

from algorithms.ode.flow import Flow
from algorithms.ode.solver import Solver, Solvers
from algorithms.ode.watch import Trace
from algorithms.tensors import Images, Logits


def flows(model: nn.Module) -> list[Flow]:
    """The ODE blocks of a network, in the order in which they were built."""
    return [module for module in model.modules() if isinstance(module, Flow)]


Choice = Solver | Callable[[Solver], Solver]  # a solver, or what makes one from that with which a block predicts


def with_solver(model: nn.Module, solver: Choice) -> nn.Module:
    """The network with another solver in every ODE block, in any mode. It shares parameters and buffers with `model`.

    Raises ValueError if there is no ODE block in it.
    """
    if not flows(model):
        raise ValueError("with_solver: a network with ODE blocks, such as odenet, sonet or soblock, not one without")
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    view = copy.deepcopy(model, memo=dict(shared))
    for flow in flows(view):
        chosen = solver if isinstance(solver, Solver) else solver(flow.solvers.prediction)
        flow.solvers = Solvers(chosen, chosen)
    return view


@final
class Guided(nn.Module):
    """A network's own logits, with its gradient under another solver: for attacks on masked gradients."""

    def __init__(self, model: nn.Module, guide: Choice) -> None:
        """Raises ValueError if `model` has no ODE block."""
        super().__init__()
        self.model, self.guide = model, with_solver(model, guide)

    def forward(self, x: Images) -> Logits:
        """The logits of the model, to the last bit."""
        with torch.no_grad():
            logits: Logits = self.model(x)
        guided: Logits = self.guide(x)
        return logits + (guided - guided.detach())


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[Trace]]:
    """Within, each pass through an ODE block of `model` adds its trace to the list. Results do not change."""
    traces: list[Trace] = []
    earlier = [(flow, flow.log) for flow in flows(model)]
    try:
        for flow, _ in earlier:
            flow.log = traces
        yield traces
    finally:
        for flow, log in earlier:
            flow.log = log
