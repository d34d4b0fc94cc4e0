"""Fast minimum-norm attack (Pintor et al. 2021, https://arxiv.org/abs/2102.12827, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import annealing, balls, checks, directions
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.gradients import Evaluated
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow


class Ball(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    eps: PerRow  # radius of the ball that the next point lies in


@final
@dataclass(frozen=True, kw_only=True)
class FMN(Attack):
    """Climbs the margin inside a ball whose radius follows the smallest perturbation known.

    One attack for all four norms, fast and with few settings: before the first success the radius is where the
    linearised boundary should be, then it shrinks while the row is fooled and grows while it is not. Each step costs
    a forward and a backward pass.

    Two things differ from the paper, whose points stall where many pixels are at 0 or 1: a gradient's entries that push
    out of the box are left out before it is normalised, and the box comes before the ball, so a point lies in both.
    """

    minimal: ClassVar[bool] = True
    norm: Norm = "l2"
    steps: int = 1000
    step_size: float = 1.0  # l2 length of the first step, in pixel units; it falls to a hundredth (the paper's alpha)
    shrink: float = 0.05  # share of the radius that the first steps take off or add; falls to 0.001 (the paper's gamma)
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.between("shrink", self.shrink, 0, 1, "a share of the radius")

    def start(self, problem: Problem) -> Ball:
        """The clean images, and no radius yet."""
        return Ball(problem.x, torch.full_like(problem.x[:, 0, 0, 0], torch.inf))

    def step(self, problem: Problem, state: Ball, k: int) -> Ball:
        """A new radius, a step along the gradient, and back into box and ball."""
        progress = k / self.steps
        at = problem.gradient(state.x_adv, self.loss)
        gradient = directions.movable(at.gradient, state.x_adv)
        eps = self._radius(problem, state, at, gradient, annealing.cosine(self.shrink, 0.001, progress))
        length = annealing.cosine(self.step_size, self.step_size / 100, progress)
        moved = state.x_adv + length * balls.steepest(directions.random_if_zero(gradient, problem, k), "l2")
        delta = balls.project(moved.clamp(0, 1) - problem.x, self.norm, eps)
        return Ball((problem.x + delta).clamp(0, 1), eps)

    def _radius(self, problem: Problem, state: Ball, at: Evaluated, gradient: Images, share: float) -> PerRow:
        """The ball after this evaluation; whole numbers in l0, where every change is of one entry at least."""
        best = problem.best
        slope = balls.dual(gradient, "l1" if self.norm == "l0" else self.norm).clamp_min(1e-30)
        boundary = balls.size(state.x_adv - problem.x, self.norm) + at.value.abs() / slope
        less, more = state.eps * (1 - share), state.eps * (1 + share)
        if self.norm == "l0":
            less = torch.minimum(less.floor(), state.eps - 1).clamp_min(1)
            more, boundary = torch.maximum(more.ceil(), state.eps + 1), boundary.ceil()
        larger = torch.where(best.success, more, boundary).clamp(max=self._farthest(problem))
        return torch.where(at.value > 0, torch.minimum(less, best.norm), larger)

    def _farthest(self, problem: Problem) -> float:
        """A radius that holds the whole box."""
        return float(problem.x[0].numel()) if self.norm != "linf" else 1.0
