"""Auto-PGD (Croce and Hein 2020, https://arxiv.org/abs/2003.01690, algorithm 1), and its form for l1.

The l1 form is that of Croce and Hein 2021 (https://arxiv.org/abs/2103.01208, algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, NamedTuple, final

import torch

from algorithms import balls, boxes, checks, directions
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.gradients import Evaluated
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, Labels, Logits, Mask, PerRow, per_row

MOMENTUM = 0.75  # share of the new step in a move; the rest goes on with the move before (the paper's alpha)
RISING = 0.75  # share of steps since the last checkpoint that must have raised the loss (the paper's rho)
SPARSER = 1.5  # in l1: steps move so many times fewer entries than the best point has moved
SPARSER_NOW = 0.95  # in l1: if the best point has lost more entries than this leaves, steps are long again
SLOWER = 1.5  # in l1: factor by which they shorten otherwise
SHORTEST = 0.1  # in l1: share of the first length to which they do


class Phase(NamedTuple):
    """A part of the search with a ball of its own."""

    radius: float  # of the ball, in units of eps
    first: int  # number of its first step
    steps: int


class Climb(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    before: Images  # the point before `x_adv`
    best: Images  # of highest value in this phase
    gradient: Images  # at `best`
    value: PerRow  # at `best`
    last: PerRow  # value at `before`
    rises: PerRow  # steps since the last checkpoint that raised the value
    length: PerRow  # of a step, in pixel units
    value_then: PerRow  # best value at the last checkpoint
    halved: Mask  # at the last checkpoint
    changed: PerRow  # in l1: how many entries differed from `x` in the best point at the last checkpoint
    kept: PerRow  # in l1: share of the entries that a step moves
    source: Labels | None  # of a targeted DLR: the class to leave


@final
@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """PGD that chooses its own step size: long steps first, shorter ones from the best point when progress stalls.

    The standard strong attack within a budget, with nothing to tune but the number of steps. At checkpoints, which come
    closer together, the step size is halved and the search goes back to its best point, if fewer than three quarters of
    the steps since the last one raised the loss or nothing better was found. Moves carry a quarter of the move before.

    `cross_entropy` is the usual loss; `dlr` does not change when logits are scaled, and finds what a saturated softmax
    hides. With `targeted` the latter is the targeted DLR, (z_t - z_s) / (z_1 - (z_3 + z_4) / 2) (equation 7), which
    goes from the class s of the clean image to the target t. AutoAttack is made of both: see the suite `standard`.

    In l1 (algorithm 1 of the second paper) a step changes fewer entries the sparser the best point is, points are
    projected onto ball and box at once, and the first steps are made in balls of 3 eps and 2 eps. Two things are new
    here: steps in l1 leave out the pixels that the box holds, and in l2 too the projection is onto both at once.

    Each step costs a forward and a backward pass; a targeted DLR, one forward pass more.
    """

    norm: Literal["linf", "l2", "l1"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    steps: int = 100
    restarts: int = 1
    loss: Loss = "cross_entropy"
    targeted: bool = False
    wide_start: bool = True  # in l1: 30 % of the steps in a ball of 3 eps and 30 % in one of 2 eps come first

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")

    def start(self, problem: Problem) -> Climb:
        """Points uniform in the first ball; in l1 rather on it, where few pixels differ."""
        x, phase, source = problem.x, self.phases[0], None
        if self.norm == "l1":
            x_adv = self._inside(x, x + problem.streams.normal(tuple(x.shape[1:]), dtype=x.dtype), phase)
        else:
            x_adv = (x + balls.random_point(x, self.norm, self.eps, problem.streams)).clamp(0, 1)
        if self.targeted and self.loss == "dlr":
            source = runner_up(problem.predict(x), problem.y)
        return self._fresh(x, x_adv, phase, source)

    def step(self, problem: Problem, state: Climb, k: int) -> Climb:
        """Evaluates a point; at a checkpoint, thinks again; then moves."""
        phase = next(phase for phase in reversed(self.phases) if k >= phase.first)
        if k == phase.first and k > 0:
            state = self._fresh(problem.x, self._inside(problem.x, state.best, phase), phase, state.source)
        value = partial(self._value, problem, state.source)
        at = problem.gradient_of(state.x_adv, value, judged=phase.radius == 1)
        state, gradient, age = _note(state, at), at.gradient, k - phase.first
        if age in checkpoints(phase.steps, self.norm):
            back, state = self._adapt(problem.x, state, phase, age)
            gradient = torch.where(per_row(back, gradient), state.gradient, gradient)
        return self._move(problem.x, state, gradient, phase, momentum=MOMENTUM if age else 1.0)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One, in the ball itself; in l1 two in larger balls come before it."""
        third = int(0.3 * self.steps)
        if self.norm != "l1" or not self.wide_start or not third:
            return (Phase(1.0, 0, self.steps),)
        return Phase(3.0, 0, third), Phase(2.0, third, third), Phase(1.0, 2 * third, self.steps - 2 * third)

    def _fresh(self, x: Images, x_adv: Images, phase: Phase, source: Labels | None) -> Climb:
        """The state at the beginning of a phase."""
        changed = balls.size(x_adv - x, "l0")
        zero = torch.zeros_like(changed)
        return Climb(
            x_adv=x_adv,
            before=x_adv,
            best=x_adv,
            gradient=torch.zeros_like(x_adv),
            value=zero - torch.inf,
            last=zero + torch.inf,
            rises=zero,
            length=zero + phase.radius * self.eps * (1 if self.norm == "l1" else 2),
            value_then=zero - torch.inf,
            halved=zero.bool(),
            changed=changed,
            kept=changed / x[0].numel() / SPARSER,
            source=source,
        )

    def _value(self, problem: Problem, source: Labels | None, logits: Logits) -> PerRow:
        return problem.loss(logits) if source is None else targeted_dlr(logits, source, problem.y)

    def _adapt(self, x: Images, state: Climb, phase: Phase, age: int) -> tuple[Mask, Climb]:
        """Which rows go back to their best point, and how all go on. Section 3.1; in l1, section 3.2."""
        if self.norm == "l1":
            changed = balls.size(state.best - x, "l0")
            back = changed < SPARSER_NOW * state.changed
            first = phase.radius * self.eps
            length = torch.where(back, first, (state.length / SLOWER).clamp_min(SHORTEST * first))
            state = state._replace(length=length, changed=changed, kept=changed / x[0].numel() / SPARSER)
        else:
            since = age - max((point for point in checkpoints(phase.steps, self.norm) if point < age), default=0)
            back = (state.rises < RISING * since) | (~state.halved & (state.value <= state.value_then))
            length = torch.where(back, state.length / 2, state.length)
            zero = torch.zeros_like(state.rises)
            state = state._replace(length=length, rises=zero, value_then=state.value, halved=back)
        x_adv = torch.where(per_row(back, x), state.best, state.x_adv)
        return back, state._replace(x_adv=x_adv, last=torch.where(back, state.value, state.last))

    def _move(self, x: Images, state: Climb, gradient: Images, phase: Phase, *, momentum: float) -> Climb:
        here, length = state.x_adv, per_row(state.length, x)
        if self.norm == "l1":
            moved = here + length * balls.sparse_step(directions.movable(gradient, here), state.kept)
        else:
            moved = self._inside(x, here + length * balls.steepest(gradient, self.norm), phase)
            moved = here + momentum * (moved - here) + (1 - momentum) * (here - state.before)
        return state._replace(x_adv=self._inside(x, moved, phase), before=here)

    def _inside(self, x: Images, x_adv: Images, phase: Phase) -> Images:
        """`x_adv` brought back into ball and box."""
        return (x + boxes.project(x, x_adv - x, self.norm, phase.radius * self.eps)).clamp(0, 1)


def _note(state: Climb, at: Evaluated) -> Climb:
    """The best point, and whether the last step rose."""
    better = at.value > state.value
    image = per_row(better, state.best)
    return state._replace(
        best=torch.where(image, state.x_adv, state.best),
        gradient=torch.where(image, at.gradient, state.gradient),
        value=torch.where(better, at.value, state.value),
        rises=state.rises + (at.value > state.last),
        last=at.value,
    )


@cache
def checkpoints(steps: int, norm: Norm) -> tuple[int, ...]:
    """Steps after which lengths are thought over: at 22 %, 41 %, 57 % and so on of all; in l1 after every 4 %."""
    if norm == "l1":
        every = max(1, int(0.04 * steps))
        return tuple(range(every, steps, every))
    points, gap, percent = [], 22, 22
    while percent < 100:
        points.append(-(-percent * steps // 100))  # rounded up
        gap = max(gap - 3, 6)
        percent += gap
    return tuple(dict.fromkeys(points))


def runner_up(logits: Logits, y: Labels) -> Labels:
    """The likeliest class but `y`: of an image that has not reached the target `y` yet, its class."""
    return logits.scatter(1, y.unsqueeze(1), -torch.inf).argmax(1)


def targeted_dlr(logits: Logits, source: Labels, target: Labels) -> PerRow:
    """Equation 7; with fewer than four classes the last two take the place of the third and the fourth."""
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    gap = logits.gather(1, target.unsqueeze(1)) - logits.gather(1, source.unsqueeze(1))
    return gap.squeeze(1) / (top[:, 0] - top[:, -2:].mean(1) + 1e-12)
