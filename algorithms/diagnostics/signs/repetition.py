"""The model gives another answer each time: it draws random numbers while it predicts.

Its gradient is that of a function which is gone when the attack takes its step (Athalye et al. 2018, section 4,
https://arxiv.org/abs/1802.00420).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import nn

from algorithms import losses
from algorithms.diagnostics.signs import Columns, Scene, Sign
from algorithms.gradients import differentiate, predict

ROUNDING = 1e-4  # relative change that arithmetic in another order may make


@final
@dataclass(frozen=True, kw_only=True)
class Repetition(Sign):
    """Examples whose logits change when the same batch is evaluated again."""

    honest: ClassVar[str] = "the same logits and gradients each time"
    slack: float = 0.0

    def applies(self, model: nn.Module) -> bool:
        """Every model."""
        return True

    def measure(self, scene: Scene) -> Columns:
        """`change` of the logits and `turn` of the gradient (1 - cosine) between two evaluations."""
        (first, one), (second, other) = look(scene), look(scene)
        change = (second - first).norm(dim=1) / first.norm(dim=1).clamp_min(1e-30)
        turn = 1 - nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))
        return {"shows": change > ROUNDING, "change": change, "turn": torch.where(change > 0, turn, 0.0)}

    def summary(self, columns: Columns) -> str:
        """The largest change."""
        change, turn = columns["change"].max(), columns["turn"].mean()
        return f"logits change by {100 * change:.2g} % at most; gradients turn by {turn:.2g} (1 - cosine) in the mean"


def look(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the batch and the gradient of its margin."""
    x = scene.x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = predict(scene.model, x)
        gradient = differentiate(losses.margin(logits, scene.y), x)
    return logits.detach(), gradient
