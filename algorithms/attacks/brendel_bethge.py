"""The attack of Brendel and Bethge (Brendel et al. 2019, https://arxiv.org/abs/1907.01003, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import annealing, balls, checks, starts, trust_region
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow

LAST_RADIUS: dict[Norm, float] = {"linf": 0.03, "l2": 0.03, "l1": 0.03, "l0": 1.0}  # good on a robust MNIST network
FIRST_PUSH, LEAST_PUSH, MOST_PUSH = 0.01, 1e-4, 0.5  # shares of the radius by which a step aims beyond the boundary
FACTOR = 1.5  # of the push, up where the row is not fooled, and down where it is


class Walk(NamedTuple):
    """Where the rows stand: at the boundary, or near it."""

    x_adv: Images
    push: PerRow  # share of the radius


@final
@dataclass(frozen=True, kw_only=True)
class BrendelBethge(Attack):
    """Walks along the decision boundary, each step ending as near to the image as the linearised boundary allows.

    A step is the exact solution of a small problem in the attack's own norm, within a trust region that shrinks: strong
    in all four norms, and with nothing to tune but the first radius. It begins far from the image, so a gradient that
    is useless there does no harm: the first search where noise or a climb up the loss has left the class, restarts at
    noise. Of several local optima it finds the one that is nearest to its start, so restarts pay.

    The paper steps onto the linearised boundary. Where that is curved, all points would lie just short of it, and none
    would fool: here each row aims beyond it, by a push that grows while it is not fooled and shrinks while it is.

    Each step costs a forward and a backward pass, and a search some dozens more to find its start. A row for which
    neither finds a wrong class is given up.
    """

    minimal: ClassVar[bool] = True
    norm: Norm = "l2"
    steps: int = 500
    restarts: int = 1  # the first from noise or a climb, others from noise
    draws: int = 16  # noise images that are tried for a start
    radius: float = 3.0  # largest l2 length of the first step, in pixel units
    last_radius: float | None = None  # of the last step; None for one that suits the norm
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.at_least("draws", self.draws, 1, "a number of noise images")
        checks.at_least("radius", self.radius, 1e-9, "a length in pixel units")
        checks.between("last_radius", self._last_radius, 1e-9, self.radius, "a length in pixel units")

    def start(self, problem: Problem) -> Walk:
        """Points at the boundary, on the way from the clean images to others of a wrong class."""
        x_adv, found = starts.at_the_boundary(problem, self.draws, climbing=problem.restart == 0)
        problem.finish(~found | (x_adv == problem.x).flatten(1).all(1))
        return Walk(x_adv, torch.full_like(x_adv[:, 0, 0, 0], FIRST_PUSH))

    def step(self, problem: Problem, state: Walk, k: int) -> Walk:
        """To the point of the linearised boundary that is nearest to the clean image, within the trust region."""
        at = problem.gradient(state.x_adv, self.loss)
        radius = annealing.exponential(self.radius, self._last_radius, k / self.steps)
        push = torch.where(at.value > 0, state.push / FACTOR, state.push * FACTOR).clamp(LEAST_PUSH, MOST_PUSH)
        gap = push * radius * balls.size(at.gradient, "l2") - at.value
        step = trust_region.step(problem.x, state.x_adv, at.gradient, gap, self.norm, radius)
        return Walk((state.x_adv + step).clamp(0, 1), push)

    @property
    def _last_radius(self) -> float:
        return min(LAST_RADIUS[self.norm], self.radius) if self.last_radius is None else self.last_radius
