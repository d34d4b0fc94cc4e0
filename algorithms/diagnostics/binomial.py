"""Exact bounds on a share that was counted (Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404)."""

from __future__ import annotations

import math

HALVINGS = 50  # of the interval in which the bound is looked for


def lower(count: int, total: int, level: float) -> float:
    """The share that `count` of `total` shows at least, with confidence `level`: smaller ones seldom give so many.

    Raises ValueError for counts that cannot be.
    """
    if not 0 <= count <= total or total == 0 or not 0 < level < 1:
        raise ValueError(
            f"count: between 0 and total = {total}, which is 1 or more, at a level between 0 and 1; "
            f"not {count} at {level:g}"
        )
    if count == 0:
        return 0.0
    low, high = 0.0, count / total
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(count, total, middle) < 1 - level else (low, middle)
    return low


def upper(count: int, total: int, level: float) -> float:
    """The share that `count` of `total` shows at most, with confidence `level`."""
    return 1 - lower(total - count, total, level)


def tail(count: int, total: int, share: float) -> float:
    """The probability of `count` or more hits in `total` trials that hit with probability `share`."""
    if count <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    hit, miss = math.log(share), math.log1p(-share)
    terms = (
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * hit + (total - k) * miss
        for k in range(count, total + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))
