"""Decoupled direction and norm (Rony et al. 2019, https://arxiv.org/abs/1811.09600, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import annealing, balls, checks, directions, losses
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow, per_row


class Sphere(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    radius: PerRow  # of the sphere that the next point lies on


@final
@dataclass(frozen=True, kw_only=True)
class DDN(Attack):
    """Follows the gradient's direction on a sphere that shrinks while the row is fooled and grows while it is not.

    The first choice for l2 where time is short: 100 steps come within some percent of the smallest perturbation, and
    there is nothing to tune. Training with it is cheap too. Each step costs a forward and a backward pass.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l2"] = "l2"
    steps: int = 1000
    radius: float = 1.0  # of the first sphere, in pixel units
    shrink: float = 0.05  # share of the radius that a step takes off or adds (the paper's gamma)
    levels: int = 0  # pixel values are rounded to this many levels, 256 for images of 8 bits; 0 for no rounding
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("radius", self.radius, 0, "a length in pixel units")
        checks.between("shrink", self.shrink, 0, 1, "a share of the radius")
        if self.levels == 1 or self.levels < 0:
            raise ValueError(f"levels: a number of pixel values, 2 or more, or 0 for no rounding, not {self.levels}")

    def start(self, problem: Problem) -> Sphere:
        """The clean images, inside a sphere."""
        return Sphere(problem.x, torch.full_like(problem.x[:, 0, 0, 0], self.radius))

    def step(self, problem: Problem, state: Sphere, k: int) -> Sphere:
        """One step along the gradient, scaled to the sphere's radius and clipped to the box."""
        at = problem.gradient(state.x_adv, self.loss)
        fooled = losses.fooled(at.logits, problem.y, targeted=self.targeted)
        radius = state.radius * torch.where(fooled, 1 - self.shrink, 1 + self.shrink)
        radius = radius.clamp(max=math.sqrt(problem.x[0].numel()))  # nothing in the box lies further away
        length = annealing.cosine(1.0, 0.01, k / self.steps)
        ahead = balls.steepest(directions.random_if_zero(at.gradient, problem, k), "l2")
        moved = state.x_adv - problem.x + length * ahead
        delta = balls.steepest(moved, "l2") * per_row(radius, moved)
        return Sphere(self._rounded((problem.x + delta).clamp(0, 1)), radius)

    def _rounded(self, x_adv: Images) -> Images:
        if not self.levels:
            return x_adv
        return (x_adv * (self.levels - 1)).round() / (self.levels - 1)
