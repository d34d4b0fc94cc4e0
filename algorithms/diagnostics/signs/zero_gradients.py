"""The gradient of the loss is exactly zero: a quantiser, a saturated softmax, a detached operation.

Papernot et al. 2017, https://arxiv.org/abs/1602.02697; Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from algorithms import losses
from algorithms.diagnostics.signs import Columns, Scene, Sign, nearby
from algorithms.gradients import differentiate, predict


@final
@dataclass(frozen=True, kw_only=True)
class ZeroGradients(Sign):
    """Examples whose cross-entropy has no gradient at all, neither at the image nor at a random point of the ball."""

    honest: ClassVar[str] = "some gradient on every example, however small"
    slack: float = 0.02

    def applies(self, model: nn.Module) -> bool:
        """Every model."""
        return True

    def measure(self, scene: Scene) -> Columns:
        """`zeros`: share of entries that are exactly zero, in the mean of both points."""
        both = [zeros(scene, at) for at in (scene.x, nearby(scene))]
        return {"shows": torch.stack(both).amin(0) == 1, "zeros": torch.stack(both).mean(0)}

    def summary(self, columns: Columns) -> str:
        """The share of examples, and of entries."""
        return (
            f"no gradient on {100 * columns['shows'].double().mean():.1f} % of the examples; "
            f"{100 * columns['zeros'].mean():.1f} % of all entries are exactly zero"
        )


def zeros(scene: Scene, at: torch.Tensor) -> torch.Tensor:
    """Share of the gradient's entries that are exactly zero, a number a row."""
    x = at.detach().requires_grad_(True)
    with torch.enable_grad():
        gradient = differentiate(losses.cross_entropy(predict(scene.model, x), scene.y), x)
    return (gradient == 0).flatten(1).double().mean(1)
