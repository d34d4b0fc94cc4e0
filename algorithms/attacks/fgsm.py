"""Fast gradient sign method (Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from algorithms import balls, checks
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images


class Point(NamedTuple):
    """Where the rows stand."""

    x_adv: Images


@final
@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """Goes to the edge of the ball in one step along the gradient at the clean image.

    The step is the one that raises a linear loss most: the gradient's sign in l-infinity, its direction in l2, its
    largest entry in l1. The best single-step attack on a linear model, and weak on any other.
    """

    norm: Literal["linf", "l2", "l1"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)

    @property
    def steps(self) -> int:
        """One."""
        return 1

    def start(self, problem: Problem) -> Point:
        """The clean images."""
        return Point(problem.x)

    def step(self, problem: Problem, state: Point, k: int) -> Point:
        """The whole radius at once."""
        gradient = problem.gradient(state.x_adv, self.loss).gradient
        return Point((problem.x + self.eps * balls.steepest(gradient, self.norm)).clamp(0, 1))
