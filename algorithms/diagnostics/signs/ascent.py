"""A step along the gradient does not raise the loss: gradients that are dead, random, or shattered.

Balduzzi et al. 2017 (https://arxiv.org/abs/1702.08591) call gradients shattered that forget within a short distance
where they pointed; chaotic neural ODEs have such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from algorithms import balls, checks, losses
from algorithms.diagnostics.signs import Columns, Scene, Sign, nearby
from algorithms.gradients import differentiate, predict


@final
@dataclass(frozen=True, kw_only=True)
class Ascent(Sign):
    """Examples on which one step of an attack, along the gradient of the cross-entropy, does not raise the margin."""

    honest: ClassVar[str] = "a short step along the gradient raises the loss"
    slack: float = 0.1
    length: float = 0.125  # of the step, in radii

    def __post_init__(self) -> None:
        """Raises ValueError for a length that makes no sense."""
        checks.between("length", self.length, 0, 1, "a length in radii")

    def applies(self, model: nn.Module) -> bool:
        """Every model."""
        return True

    def measure(self, scene: Scene) -> Columns:
        """`rise` of the margin, as a share of what the margin's own gradient promises for that step."""
        start = nearby(scene)
        x = start.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = predict(scene.model, x)
            margin = losses.margin(logits, scene.y)
            slope = differentiate(margin, x, again=True)
            climbed = differentiate(losses.cross_entropy(logits, scene.y), x)
        step = self.length * scene.eps * balls.steepest(climbed, scene.norm)
        there = (start + step).clamp(0, 1)
        with torch.no_grad():
            rise = losses.margin(predict(scene.model, there), scene.y) - margin.detach()
        promised = (slope * (there - start)).flatten(1).sum(1)
        return {"shows": rise <= 0, "rise": torch.where(promised > 0, rise / promised, 0.0)}

    def summary(self, columns: Columns) -> str:
        """How many rise, and by how much of what was promised."""
        return (
            f"the margin rises on {100 * (~columns['shows']).double().mean():.1f} % of the examples, "
            f"by {columns['rise'].median():.2g} of what the gradient promises in the median"
        )
