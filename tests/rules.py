"""Attacks whose every point is known beforehand, to test what is around an attack's rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.losses import Loss
from algorithms.search import Problem


class State(NamedTuple):
    """Where the rows stand, and parts that a search has to carry along."""

    x_adv: Tensor
    label: Tensor | None = None
    inner: Any = None


@final
@dataclass(frozen=True)
class Scripted(Attack):
    """Looks at the points of a list, one a step, and then stands on the last: each a number for the only pixel."""

    points: tuple[float, ...]
    minimal: bool = False
    norm: Norm = "linf"
    targeted: bool = False
    loss: Loss = "margin"
    restarts: int = 1

    @property
    def steps(self) -> int:
        return len(self.points)

    def start(self, problem: Problem) -> State:
        return State(problem.x)

    def step(self, problem: Problem, state: State, k: int) -> State:
        x_adv = torch.full_like(problem.x, self.points[k])
        problem.gradient(x_adv)
        return State(torch.full_like(problem.x, self.points[-1]))


@final
@dataclass(frozen=True)
class Wandering(Attack):
    """Steps at random, from a random start, and checks that what it is handed belongs together."""

    norm: Norm = "l2"
    targeted: bool = False
    loss: Loss = "cross_entropy"
    steps: int = 6
    restarts: int = 2

    def start(self, problem: Problem) -> State:
        noise = problem.streams.normal(tuple(problem.x.shape[1:]), 0, dtype=problem.x.dtype)
        carried = State(problem.x, torch.full_like(problem.y, problem.restart))
        return State((problem.x + 0.05 * noise).clamp(0, 1), problem.y, carried)

    def step(self, problem: Problem, state: State, k: int) -> State:
        assert state.label is not None
        assert torch.equal(state.label, problem.y)
        assert torch.equal(state.inner.x_adv, problem.x)
        assert (state.inner.label == problem.restart).all()
        problem.gradient(state.x_adv)
        noise = problem.streams.normal(tuple(problem.x.shape[1:]), k + 1, dtype=problem.x.dtype)
        return State((state.x_adv + 0.1 * noise).clamp(0, 1), state.label, state.inner)
