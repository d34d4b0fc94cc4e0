"""The L-BFGS attack (Szegedy et al. 2014, https://arxiv.org/abs/1312.6199, section 4.1), the first of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import checks, losses, quasi_newton, trade
from algorithms.attacks import Attack
from algorithms.quasi_newton import inner
from algorithms.search import Problem
from algorithms.tensors import Images, Labels, Logits, Mask, PerRow, per_row

ARMIJO = 1e-4  # share of the decrease that the slope promises which a step must bring


class Descent(NamedTuple):
    """Where the rows stand: at a point, and before another one that may be better."""

    x_adv: Images  # to be tried
    point: Images  # the best of this descent
    objective: PerRow  # there, infinite before the first point
    slope: Images  # there, of the objective
    fooled: Mask  # there
    direction: Images  # from there
    length: PerRow  # share of `direction` that is tried
    memory: quasi_newton.Memory
    search: trade.Search


@final
@dataclass(frozen=True, kw_only=True)
class LBFGS(Attack):
    """Minimises ||x' - x||^2 minus worth * the log-likelihood of a wrong class by L-BFGS, for several worths.

    The oldest of the minimal-norm attacks, for tables that compare with it. Cross-entropy never stops asking for more,
    so what fools at one worth is not the nearest such point: the worth is halved towards the least that still fools.
    For an affine model with two classes that ends at the boundary, and on a robust MNIST network near `ddn`, which
    takes fewer passes and is less to compute. The paper aims at a class; untargeted, all classes but that of `y` count
    as one.

    The paper's box-constrained solver ran on one image; here each row of the batch has a memory, a step length and a
    worth of its own. Each step is one trial point, and costs a forward and a backward pass.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l2"] = "l2"
    steps: int = 1000  # trial points at most, of all searches together
    searches: int = 10  # descents, each with a worth of its own
    worth: float = 1.0  # of a wrong class's log-likelihood against the squared norm, at first (the paper's 1 / c)
    memory: int = 10  # steps from which the curvature is estimated
    loss: Literal["cross_entropy"] = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        trade.check(self.steps, self.searches, self.worth)
        checks.at_least("memory", self.memory, 1, "a number of steps")

    def start(self, problem: Problem) -> Descent:
        """The clean images."""
        x, zero = problem.x, torch.zeros_like(problem.x)
        ones = torch.ones_like(x[:, 0, 0, 0])
        memory = quasi_newton.empty(x, self.memory)
        search = trade.start(x, self.worth)
        return Descent(x, x, ones * torch.inf, zero, search.fooled, zero, ones, memory, search)

    def step(self, problem: Problem, state: Descent, k: int) -> Descent:
        """Tries a point: a row that likes it goes there and looks further, another one halves its step."""
        there = state.x_adv
        at = problem.gradient_of(there, lambda logits: likelihood(logits, problem.y, targeted=self.targeted))
        delta, worth = there - problem.x, state.search.worth
        objective = inner(delta, delta) - worth * at.value
        slope = 2 * delta - per_row(worth, there) * at.gradient
        move = there - state.point
        better = objective <= state.objective + ARMIJO * inner(state.slope, move)
        state = self._look(state, there, objective, slope, better)
        fooled = torch.where(better, losses.fooled(at.logits, problem.y, targeted=self.targeted), state.fooled)
        here_alone = state.search._replace(fooled=torch.zeros_like(fooled))  # a long step's success does not count
        search, over = trade.advance(here_alone, fooled, state.objective, self.steps // self.searches)
        problem.finish(search.descents >= self.searches)
        state = begin_again(state._replace(fooled=fooled, search=search), problem.x, over)
        return state._replace(x_adv=(state.point + per_row(state.length, there) * state.direction).clamp(0, 1))

    def _look(self, state: Descent, there: Images, objective: PerRow, slope: Images, better: Mask) -> Descent:
        """Rows for which the trial was better stand there, with a new direction; others halve the step."""
        memory = quasi_newton.remember(state.memory, there - state.point, slope - state.slope, better)
        direction = quasi_newton.direction(memory, slope, quasi_newton.free(there, slope))
        rows = per_row(better, there)
        return state._replace(
            point=torch.where(rows, there, state.point),
            objective=torch.where(better, objective, state.objective),
            slope=torch.where(rows, slope, state.slope),
            direction=torch.where(rows, direction, state.direction),
            length=torch.where(better, 1, state.length / 2),
            memory=memory,
        )


def begin_again(state: Descent, x: Images, over: Mask) -> Descent:
    """Rows whose descent is over stand at the clean image and have forgotten what they knew."""
    if not over.any():
        return state
    rows = per_row(over, x)
    return state._replace(
        point=torch.where(rows, x, state.point),
        objective=torch.where(over, torch.inf, state.objective),
        slope=torch.where(rows, 0, state.slope),
        direction=torch.where(rows, 0, state.direction),
        length=torch.where(over, 1, state.length),
        memory=quasi_newton.Memory(*(torch.where(rows.unsqueeze(1), 0, pairs) for pairs in state.memory)),
    )


def likelihood(logits: Logits, y: Labels, *, targeted: bool) -> PerRow:
    """The log-likelihood of the target, or of all classes but that of `y` together."""
    if targeted:
        return -losses.cross_entropy(logits, y)
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return others.logsumexp(1) - logits.logsumexp(1)
