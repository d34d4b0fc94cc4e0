"""An image's logits depend on the images beside it: adaptive solvers take one sequence of steps for a whole batch.

A figure then depends on how the examples were put together, and what withstands an attack in one batch may fall alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from algorithms.diagnostics.signs import Columns, Scene, Sign
from algorithms.gradients import predict

ROUNDING = 1e-4  # relative change that arithmetic in another order may make
NOISE = 3  # times what changes from one evaluation to the next is no effect of the companions


@final
@dataclass(frozen=True, kw_only=True)
class Companions(Sign):
    """Examples whose logits alone are not those in a batch."""

    honest: ClassVar[str] = "the same logits alone as in a batch, up to rounding"
    slack: float = 0.05

    def applies(self, model: nn.Module) -> bool:
        """Every model."""
        return True

    def measure(self, scene: Scene) -> Columns:
        """`change` of the logits, and whether the prediction is another one alone (`other`)."""
        with torch.no_grad():
            together, again = predict(scene.model, scene.x), predict(scene.model, scene.x)
            alone = torch.cat([predict(scene.model, row) for row in scene.x.split(1)])
        size = together.norm(dim=1).clamp_min(1e-30)
        change, noise = ((one - together).norm(dim=1) / size for one in (alone, again))
        shows = change > (NOISE * noise).clamp_min(ROUNDING)
        return {"shows": shows, "change": change, "other": alone.argmax(1) != together.argmax(1)}

    def summary(self, columns: Columns) -> str:
        """The largest change, and the predictions that differ."""
        other = int(columns["other"].sum())
        return (
            f"logits alone differ by {100 * columns['change'].max():.2g} % at most; "
            f"{other} of {len(columns['other'])} predictions are others"
        )
