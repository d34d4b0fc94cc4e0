"""A model whose output has a gradient, if only zero: so that one that has none can be measured like any other."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn


@final
class Graded(nn.Module):
    """A model's own logits. Where it gives no gradient (it rounds, it detaches, it calls a program), that is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.model(x)
        return logits if logits.requires_grad or not x.requires_grad else logits + 0 * x.flatten(1).sum(1, keepdim=True)
