"""How far apart two predictions are, a number an example."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from algorithms.tensors import Logits, PerRow


def kullback_leibler(logits: Logits, other: Logits) -> PerRow:
    """KL(p || q) in nats, with p the softmax of `logits` and q that of `other`; gradients flow through both."""
    log_p, log_q = functional.log_softmax(logits, dim=1), functional.log_softmax(other, dim=1)
    divergence: Tensor = (log_p.exp() * (log_p - log_q)).sum(1)
    return divergence
