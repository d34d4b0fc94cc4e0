"""The best pair of entries for a saliency map, found without looking at all pairs.

(Papernot et al. 2016, https://arxiv.org/abs/1511.07528, algorithms 2 and 3.) Of all pairs with A > 0 and B > 0, where
A and B are the pair's sums of `gain` and of `loss`, the one with the largest product A B. The product only grows with
either factor. So an entry that two others match or exceed in both can be left out: one of the two is not its partner,
and would do as well. What stays are the first two Pareto fronts, some tens of entries.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms.tensors import PerRow

MOST_PAIRS = 2**24  # that are looked at together

Entries = Float[Tensor, "batch entries"]


class Pair(NamedTuple):
    """Two entries of each row."""

    entries: Int64[Tensor, "batch 2"]
    product: PerRow  # A B; minus infinity where no pair has both sums positive


def best_pair(gain: Entries, loss: Entries, allowed: Tensor) -> Pair:
    """The pair of entries, among those that are `allowed` (batch, entries), with the largest product."""
    gain, loss = gain.masked_fill(~allowed, -torch.inf), loss.masked_fill(~allowed, -torch.inf)
    first = front(gain, loss)
    second = front(gain.masked_fill(first, -torch.inf), loss.masked_fill(first, -torch.inf))
    kept = (first | second) & allowed
    count = max(2, int(kept.sum(1).max()))
    places = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    there = kept.gather(1, places)
    sides = [values.gather(1, places).masked_fill(~there, -torch.inf) for values in (gain, loss)]
    few = max(1, MOST_PAIRS // count**2)  # rows at a time
    parts = [_among_all(*part) for part in zip(*(side.split(few) for side in sides), strict=True)]
    pair, product = (torch.cat(each) for each in zip(*parts, strict=True))
    return Pair(places.gather(1, pair), product)


def _among_all(gain: Entries, loss: Entries) -> Pair:
    """The best pair among all of a few entries."""
    count = gain.shape[1]
    gains, losses = gain.unsqueeze(1) + gain.unsqueeze(2), loss.unsqueeze(1) + loss.unsqueeze(2)
    once = torch.ones(count, count, dtype=torch.bool, device=gain.device).triu(1)  # each pair, and no entry twice
    product = torch.where((gains > 0) & (losses > 0) & once, gains * losses, -torch.inf).flatten(1)
    best, index = product.max(1)
    return Pair(torch.stack([index // count, index % count], 1), best)


def front(gain: Entries, loss: Entries) -> Tensor:
    """The entries that no other one matches or exceeds in both, (batch, entries) bool; of equal ones, one."""
    order = loss.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, gain.gather(1, order).argsort(dim=1, descending=True, stable=True))  # ties: by `loss`
    height = loss.gather(1, order).cummax(1).values
    before = torch.cat([torch.full_like(height[:, :1], -torch.inf), height[:, :-1]], 1)
    return torch.zeros_like(gain, dtype=torch.bool).scatter(1, order, loss.gather(1, order) > before)
