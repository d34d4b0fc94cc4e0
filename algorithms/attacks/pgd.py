"""Projected gradient descent (Madry et al. 2018, https://arxiv.org/abs/1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from algorithms import balls, checks, directions
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images

NEAR = 0.1  # share of an l2 radius within which the first search starts


class Iterate(NamedTuple):
    """Where the rows stand."""

    x_adv: Images


@final
@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Climbs the loss from a random start and projects onto the ball after each step.

    In l-infinity a step follows the gradient's sign, in l2 its direction, and in l1 the signs of its largest entries
    (SLIDE: Tramèr and Boneh 2019, https://arxiv.org/abs/1904.13000). Restarts keep the worst point of all. With the
    loss `margin` this is the attack that papers call "CW-infinity" inside a fixed ball.

    A start is uniform in the ball, but the first in l2 in a ball of a tenth of the radius. In many dimensions a point
    uniform in an l2 ball lies at its edge, where noise has used up what the loss could have: with one search such
    starts leave one or two images of a hundred more standing on robust MNIST networks. Over several, variety helps.
    """

    norm: Literal["linf", "l2", "l1"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    step_size: float = 2 / 255  # in pixel units, like eps
    steps: int = 10
    restarts: int = 1
    random_start: bool = True  # otherwise from the clean image
    loss: Loss = "cross_entropy"
    kept: float = 0.01  # share of the entries that a step moves; l1 only
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.between("kept", self.kept, 0, 1, "a share of the entries")

    def start(self, problem: Problem) -> Iterate:
        """The clean images, or random points around them."""
        if not self.random_start:
            return Iterate(problem.x)
        radius = self.eps * NEAR if self.norm == "l2" and problem.restart == 0 else self.eps
        return Iterate((problem.x + balls.random_point(problem.x, self.norm, radius, problem.streams)).clamp(0, 1))

    def step(self, problem: Problem, state: Iterate, k: int) -> Iterate:
        """One steepest step, back onto the ball and into the box."""
        gradient = problem.gradient(state.x_adv, self.loss).gradient
        if self.norm == "l1":  # entries that the box holds would take the place of some that can move
            direction = balls.sparse_step(directions.movable(gradient, state.x_adv), self.kept)
        else:
            direction = balls.steepest(gradient, self.norm)
        moved = state.x_adv + self.step_size * direction
        return Iterate((problem.x + balls.project(moved - problem.x, self.norm, self.eps)).clamp(0, 1))
