"""The mean of several evaluations: expectation over transformation (Athalye et al. 2018).

https://arxiv.org/abs/1707.07397
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from algorithms import checks
from algorithms.gradients import predict
from algorithms.views import View


@final
@dataclass(frozen=True, kw_only=True)
class Averaged(View):
    """For a model that draws random numbers: the mean of its logits over several draws, and the gradient of that."""

    draws: int = 16

    def __post_init__(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        checks.at_least("draws", self.draws, 1, "a number of evaluations")

    def see(self, model: nn.Module) -> nn.Module:
        """The model, evaluated several times."""
        return Mean(model, self.draws)


@final
class Mean(nn.Module):
    """The mean of the logits of several evaluations."""

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return torch.stack([predict(self.model, x) for _ in range(self.draws)]).mean(0)
