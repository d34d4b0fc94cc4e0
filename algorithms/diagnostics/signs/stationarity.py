"""Gradient ascent does not end where it should: the first-order condition at its last point stays large.

Wang et al. 2019, https://arxiv.org/abs/2112.08304. Here it is measured in units of all that the gradient offers between
the best and the worst point of the ball: 0 at a point that is best to first order, 1/2 at one that has nothing to do
with the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from algorithms import checks, losses
from algorithms.attacks.pgd import PGD
from algorithms.diagnostics.fosc import farthest, fosc
from algorithms.diagnostics.signs import Columns, Scene, Sign
from algorithms.gradients import differentiate, predict
from algorithms.search import search


@final
@dataclass(frozen=True, kw_only=True)
class Stationarity(Sign):
    """Examples on which PGD ends far from any stationary point."""

    honest: ClassVar[str] = "PGD takes most of what the gradient offers: far less than 1/2 is left"
    slack: float = 0.25
    steps: int = 20
    large: float = 0.4  # what is left from which an end is called far from stationary

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.between("large", self.large, 0, 1, "a share of what the gradient offers")

    def applies(self, model: nn.Module) -> bool:
        """Every model."""
        return True

    def measure(self, scene: Scene) -> Columns:
        """`fosc` at the end, and `left`: the same in units of what the gradient offers; 0 where there is none."""
        if scene.norm == "l0":
            raise ValueError("norm: stationarity needs a convex ball: linf, l2 or l1, not l0")
        attack = PGD(norm=scene.norm, eps=scene.eps, step_size=scene.eps / 8, steps=self.steps)
        found = search(attack, scene.model, scene.x, scene.y, rng=scene.streams, policy="last")
        x = found.x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            gradient = differentiate(losses.cross_entropy(predict(scene.model, x), scene.y), x)
        ball = (scene.norm, scene.eps)
        gap = fosc(scene.x, found.x_adv, gradient, *ball, box=True)
        best, worst = (farthest(scene.x, sign * gradient, *ball, box=True) for sign in (1, -1))
        offered = ((best - worst) * gradient).flatten(1).sum(1)
        left = torch.where(offered > 0, gap / offered.clamp_min(1e-30), 0.0)
        return {"shows": left > self.large, "fosc": gap, "left": left}

    def summary(self, columns: Columns) -> str:
        """What is left, and the condition itself."""
        return (
            f"{columns['left'].median():.2f} of what the gradient offers is left in the median "
            f"(condition {columns['fosc'].median():.2g})"
        )
