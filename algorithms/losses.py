"""What an attack climbs: one number a row, higher is more adversarial; never averaged over the batch.

`cross_entropy`; `log_odds`, which points the same way and does not saturate; `margin` (Carlini and Wagner 2017,
https://arxiv.org/abs/1608.04644, equation 6 without its hinge); `dlr`, the difference of logits ratio (Croce and Hein
2020, https://arxiv.org/abs/2003.01690, equation 6; their targeted form, equation 7, needs the true class beside the
target and belongs to `apgd`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from algorithms.tensors import Labels, Logits, PerRow

Loss = Literal["cross_entropy", "margin", "dlr", "log_odds"]


def margin(logits: Logits, y: Labels) -> PerRow:
    """Largest other logit minus that of `y`: positive exactly where `y` is not predicted, zero at a tie."""
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return others.amax(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)


def dlr(logits: Logits, y: Labels) -> PerRow:
    """The margin over the gap between first and third logit: it does not change when logits are scaled."""
    top = logits.topk(min(3, logits.shape[1]), dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, -1] + 1e-12)


def cross_entropy(logits: Logits, y: Labels) -> PerRow:
    """Minus the log-probability of `y`."""
    return functional.cross_entropy(logits, y, reduction="none")


def log_odds(logits: Logits, y: Labels) -> PerRow:
    """Logarithm of the odds against `y`: its gradient points as that of the cross-entropy does, and never vanishes."""
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return others.logsumexp(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)


def loss(name: Loss, logits: Logits, y: Labels, *, targeted: bool = False) -> PerRow:
    """The loss `name` a row, to be climbed; where `targeted`, `y` holds the classes to reach."""
    values = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr, "log_odds": log_odds}
    value = values[name](logits, y)
    return -value if targeted else value


def fooled(logits: Logits, y: Labels, *, targeted: bool = False) -> torch.Tensor:
    """Which rows are adversarial, (batch,) bool. A tie is not: the prediction might still go either way."""
    gap = margin(logits, y)
    return gap < 0 if targeted else gap > 0
