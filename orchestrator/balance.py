"""The order in which a step's shards are handed out: the dearest first, by what their examples cost when last attacked.

Attackers take the next shard when they are free, so whoever gets a cheap one gets more of them. What is left to chance
is the end of a step, when a dear shard that was handed out last keeps all others waiting. Where examples stop early,
shards differ, and examples that were dear in the last epoch are so in this one: longest first is at most a third worse
than the best order (Graham 1969, https://doi.org/10.1137/0117039). No result depends on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from workers import schedule
from workers.messages import Shard, Work


@final
class Costs:
    """Gradients that each training example took when it was last attacked. A resumed run begins without."""

    def __init__(self, work: Work, examples: int) -> None:
        """`examples`: in the training part."""
        self.work, self.examples = work, examples
        self.spent = np.full(examples, np.nan)

    def note(self, shard: Shard, spent: NDArray[np.int32]) -> None:
        """Notes what the examples of a shard took."""
        self.spent[schedule.indices(self.work, self.examples, shard)] = spent

    def dearest_first(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards by what they are expected to cost; where that is the same, or unknown, in their order."""
        return sorted(shards, key=self.expected, reverse=True)

    def expected(self, shard: Shard) -> float:
        """The mean over a shard's examples that have been attacked before; 0 where none has."""
        known = self.spent[schedule.indices(self.work, self.examples, shard)]
        known = known[~np.isnan(known)]
        return float(known.mean()) if len(known) else 0.0
