"""Logits of a size at which no softmax saturates (Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644).

They attacked defensive distillation by dividing its logits by its temperature once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from algorithms import checks
from algorithms.gradients import predict
from algorithms.views import View


@final
@dataclass(frozen=True, kw_only=True)
class Scaled(View):
    """Each row's logits, divided by their own spread: predictions stay, the cross-entropy has a gradient again."""

    spread: float = 5.0  # between the largest and the smallest logit, afterwards

    def __post_init__(self) -> None:
        """Raises ValueError for a spread that makes no sense."""
        checks.between("spread", self.spread, 1e-3, 80, "a difference of logits at which softmax does not saturate")

    def see(self, model: nn.Module) -> nn.Module:
        """The model with scaled logits."""
        return ScaledLogits(model, self.spread)


@final
class ScaledLogits(nn.Module):
    """Logits of one spread; the spread itself is taken as a constant."""

    def __init__(self, model: nn.Module, spread: float) -> None:
        super().__init__()
        self.model, self.spread = model, spread

    def forward(self, x: Tensor) -> Tensor:
        """The scaled logits."""
        logits = predict(self.model, x)
        seen = logits.detach()
        width = (seen.amax(1, keepdim=True) - seen.amin(1, keepdim=True)).clamp_min(1e-12)
        return logits * (self.spread / width)
