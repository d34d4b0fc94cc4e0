"""One pass of the method of successive approximations: every layer's problem, complete, for whoever solves it.

The problems are independent. So they go in any order and to any machine, with the same bits. Only a batch norm ties two
layers: the bound on a weight is a bound on it together with the scale of the batch norm after it, so scales, which are
vectors and cost nothing, move first and here, and the weights then all at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from algorithms.control import folding
from algorithms.control.folding import Follower
from algorithms.control.maximisation import Maximised, Memory, Terms, maximise
from algorithms.updates import Parameters, State


class Problem(NamedTuple):
    """The maximisation of one layer's Hamiltonian, in the order of what `maximise` takes."""

    terms: Terms
    theta: Tensor
    product: Tensor
    memory: Memory

    @property
    def small(self) -> bool:
        """True if no set limits the weights, or they are a vector: not worth a journey."""
        return self.terms.frozen or math.isinf(self.terms.constraint.limit) or self.theta.dim() < 2


Solve = Callable[[Sequence[Problem]], Sequence[Maximised]]  # the problems' solutions, in the problems' order


@runtime_checkable
class Decoupled(Protocol):
    """An update that moves each parameter by itself."""

    def problems(self, parameters: Parameters, gradients: Parameters, state: State) -> dict[str, Problem]:
        """The problem of each parameter, by name."""


class Moved(NamedTuple):
    """What a pass gives."""

    parameters: Parameters
    state: State
    notes: tuple[str, ...] = ()  # what the user should know: solvers that failed


def here(problems: Sequence[Problem]) -> list[Maximised]:
    """Solves the problems in this process, one after the other."""
    return [maximise(*problem) for problem in problems]


def move(problems: dict[str, Problem], followers: dict[str, Follower], solve: Solve) -> Moved:
    """Moves all layers: the small ones here, the others by `solve`, under bounds that count the batch norms after them.

    Raises FloatingPointError and ValueError as `maximise` does; nothing changes in place.
    """
    results = {}
    for name, problem in problems.items():
        if problem.small:
            results[name] = maximise(*_scaled(problem, followers.get(name), {}))
    scales = {name: result.theta for name, result in results.items()}
    rest = {name: _scaled(p, followers.get(name), scales) for name, p in problems.items() if not p.small}
    results |= dict(zip(rest, solve(list(rest.values())), strict=True))
    return collected({name: results[name] for name in problems})


def settle(update: Decoupled, parameters: Parameters, model: nn.Module) -> Parameters:
    """The allowed weights nearest to `parameters`: themselves, but after passes that do not project, or an average.

    `model` lends its batch norms' statistics.
    """
    nothing = {name: torch.zeros_like(value) for name, value in parameters.items()}
    problems = {
        name: Problem(problem.terms.still(), problem.theta, problem.product, {})
        for name, problem in update.problems(parameters, nothing, {}).items()
    }
    return move(problems, folding.followers(model), here).parameters


def of_layer(name: str, state: State) -> Memory:
    """What one layer remembers, out of the state of all."""
    return {key.partition("/")[0]: value for key, value in state.items() if key.partition("/")[2] == name}


def filed(name: str, memory: Memory) -> State:
    """What one layer remembers, as part of the state of all."""
    return {f"{key}/{name}": value for key, value in memory.items()}


def collected(results: dict[str, Maximised]) -> Moved:
    """The parameters, the state and the notes of all layers."""
    state: State = {}
    for name, result in results.items():
        state |= filed(name, result.memory)
    notes = tuple(result.note for result in results.values() if result.note)
    return Moved({name: result.theta for name, result in results.items()}, state, notes)


def _scaled(problem: Problem, follower: Follower | None, scales: dict[str, Tensor]) -> Problem:
    """The problem with the scale of the batch norm in its memory: after its own step, where that has been made."""
    if follower is None or problem.terms.frozen or math.isinf(problem.terms.constraint.limit):
        return problem
    scale = follower.plain if follower.weight is None else follower.plain * scales[follower.weight]
    return problem._replace(memory=problem.memory | {"scale": scale})
