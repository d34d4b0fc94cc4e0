"""The best pair of entries for a saliency map, found without looking at all pairs.

(Papernot et al. 2016, https://arxiv.org/abs/1511.07528, algorithms 2 and 3.) Of all pairs with A > 0 and B > 0, where
A and B are the pair's sums of `gain` and of `loss`, the one with the largest product A B. For every weight w > 0

    2 sqrt(A B) <= w A + B / w,    a sum of two entries' worths, w gain + loss / w.

So once some pair is known, no entry is in a better one whose worth and the largest worth together stay below that: a
few entries of largest worth are looked at, and more of them only where those do not settle it. The bound is tight for
the w with w A = B / w, that of the best pair.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms.tensors import PerRow

MOST_PAIRS = 2**24  # that are looked at together
FEW = 16  # entries that are looked at first
SURE = 1 - 1e-5  # what rounding leaves of a bound

Entries = Float[Tensor, "batch entries"]


class Pair(NamedTuple):
    """Two entries of each row."""

    entries: Int64[Tensor, "batch 2"]
    product: PerRow  # A B; minus infinity where no pair has both sums positive


def best_pair(gain: Entries, loss: Entries, allowed: Tensor) -> Pair:
    """The pair of entries, among those that are `allowed` (batch, entries), with the largest product."""
    gain, loss = (torch.where(allowed, values, -torch.inf) for values in (gain, loss))
    highest = [values.amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny).sqrt() for values in (gain, loss)]
    return _among_most(gain, loss, highest[1] / highest[0], FEW)


def _among_most(gain: Entries, loss: Entries, weight: Tensor, count: int) -> Pair:
    """The best pair, sought among the `count` entries of largest worth, and where that is not sure among more."""
    count = min(count, gain.shape[1])
    worth, places = (weight * gain + loss / weight).topk(count, dim=1)
    places = places.sort(dim=1).values  # of equal pairs the first, whatever else is looked at
    sides = [values.gather(1, places) for values in (gain, loss)]
    few = max(1, MOST_PAIRS // count**2)  # rows at a time
    parts = [_among_all(*part) for part in zip(*(side.split(few) for side in sides), strict=True)]
    chosen, product = (torch.cat(each) for each in zip(*parts, strict=True))
    pair = Pair(places.gather(1, chosen), product)
    open_ = worth[:, 0] + worth[:, -1] >= SURE * 2 * product.clamp_min(0).sqrt()
    if count == gain.shape[1] or not open_.any():
        return pair
    rows = open_.nonzero().squeeze(1)
    sums = [values[rows].gather(1, pair.entries[rows]).sum(1, keepdim=True) for values in (gain, loss)]
    better = torch.where(product[rows, None] > 0, (sums[1] / sums[0]).sqrt(), weight[rows])
    among = _among_most(gain[rows], loss[rows], better, 2 * count)
    return Pair(*(values.index_copy(0, rows, more) for values, more in zip(pair, among, strict=True)))


def _among_all(gain: Entries, loss: Entries) -> Pair:
    """The best pair among all of a few entries."""
    count = gain.shape[1]
    gains, losses = gain.unsqueeze(1) + gain.unsqueeze(2), loss.unsqueeze(1) + loss.unsqueeze(2)
    once = gain.new_ones(count, count).triu(1)  # each pair, and no entry twice
    best, index = (gains.clamp_min(0) * losses.clamp_min(0) * once).flatten(1).max(1)
    return Pair(torch.stack([index // count, index % count], 1), torch.where(best > 0, best, -torch.inf))
