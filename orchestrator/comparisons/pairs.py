"""Is one run better than another on the same examples? McNemar's exact test, with Holm's correction for many pairs.

McNemar 1947 (https://doi.org/10.1007/BF02295996): of the examples on which two models differ, under the hypothesis that
neither is better, each wins one with probability one half. Holm 1979 (https://www.jstor.org/stable/4615733).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.comparisons.sides import Group, Side
from orchestrator.evaluations import figures
from orchestrator.evaluations.outcome import Outcome

LEVEL = 0.05  # "better" is said where so much or less of it is chance
Flags = NDArray[np.bool_]


class Pair(NamedTuple):
    """Two runs on the examples that both were attacked on."""

    first: str
    second: str
    examples: int
    wins: int  # examples that stand in the first alone
    losses: int  # examples that stand in the second alone
    chance: float  # McNemar's p value, corrected
    reason: str = ""  # why they cannot be compared; empty where they can

    @property
    def difference(self) -> float:
        """Robust accuracy of the first minus that of the second."""
        return (self.wins - self.losses) / self.examples if self.examples else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference: that of Wald for pairs, with half an example added to each count."""
        n, b, c = self.examples + 2, self.wins + 0.5, self.losses + 0.5
        spread = figures.Z_95 * math.sqrt(max(0.0, b + c - (b - c) ** 2 / n)) / n
        return (b - c) / n - spread, (b - c) / n + spread

    @property
    def verdict(self) -> str:
        """One word or two."""
        if self.reason:
            return self.reason
        if self.chance > LEVEL:
            return "no difference shown"
        return "better" if self.wins > self.losses else "worse"


def exact(wins: int, losses: int) -> float:
    """The p value of McNemar's exact two-sided test."""
    from scipy.stats import binomtest  # noqa: PLC0415 - only where runs are compared

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(chances: Sequence[float]) -> list[float]:
    """P values corrected for being so many, in their order."""
    corrected, largest = [0.0] * len(chances), 0.0
    for rank, place in enumerate(np.argsort(chances, kind="stable")):
        largest = max(largest, min(1.0, (len(chances) - rank) * chances[place]))
        corrected[place] = largest
    return corrected


def against_first(sides: Sequence[Side], group: Group) -> list[Pair]:
    """Every later run against the first that has this evaluation."""
    there = [side for side in sides if group in side.outcomes]
    if len(there) < 2:
        return []
    base, *others = there
    standing = standing_of(base.outcomes[group])
    raw = [_pair(other, base, group, standing) for other in others]
    fair = [pair for pair in raw if not pair.reason]
    corrected = dict(zip([p.first for p in fair], holm([p.chance for p in fair]), strict=True))
    return [pair._replace(chance=corrected.get(pair.first, pair.chance)) for pair in raw]


def _pair(side: Side, base: Side, group: Group, standing: dict[int, tuple[int, bool]]) -> Pair:
    """One run against the base, whose examples' labels and standing are known."""
    if side.dataset != base.dataset:
        return Pair(side.name, base.name, 0, 0, 0, 1.0, f"other data: {side.dataset}, not {base.dataset}")
    own = standing_of(side.outcomes[group])
    common = [index for index in own if index in standing]
    if not common or any(own[index][0] != standing[index][0] for index in common):
        return Pair(side.name, base.name, 0, 0, 0, 1.0, "other examples")
    wins = sum(own[index][1] and not standing[index][1] for index in common)
    losses = sum(standing[index][1] and not own[index][1] for index in common)
    return Pair(side.name, base.name, len(common), wins, losses, exact(wins, losses))


def standing_of(outcome: Outcome) -> dict[int, tuple[int, bool]]:
    """Of each example its label, and whether it stands under all attacks together."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows = pq.read_table(outcome.parquet, columns=["attack", "index", "label", "success", outcome.norm])
    index, label = rows["index"].to_numpy(), rows["label"].to_numpy()
    entries = int(np.prod(_shape(outcome)))
    fallen = rows["success"].to_numpy() & ~figures.standing(
        rows[outcome.norm].to_numpy(), outcome.norm, outcome.eps, entries
    )
    stands: dict[int, tuple[int, bool]] = {}
    for place, known, fell in zip(index.tolist(), label.tolist(), fallen.tolist(), strict=True):
        stands[place] = known, stands.get(place, (known, True))[1] and not fell
    return stands


def _shape(outcome: Outcome) -> tuple[int, ...]:
    """Of an image."""
    with np.load(outcome.images) as stored:
        shape: tuple[int, ...] = stored["clean"].shape[1:]
    return shape
