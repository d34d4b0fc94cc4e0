"""How two pieces of work are compared: in turn, several times, and the median of the ratios is quoted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    what: str
    against: str
    ratio: float  # of the times: below 1, `what` is the faster
    low: float  # smallest and largest ratio of a pair
    high: float
    seconds: float  # of `what`, median

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def seconds_of(work: Callable[[], object]) -> float:
    """How long `work` takes once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(names: tuple[str, str], ours: Callable[[], object], theirs: Callable[[], object], pairs: int = 7) -> Row:
    """Times the two in turn, after one round that is not counted; each pair begins with the other one."""
    ours(), theirs()
    times = []
    for pair in range(pairs):
        if pair % 2:
            theirs_took, ours_took = seconds_of(theirs), seconds_of(ours)
        else:
            ours_took, theirs_took = seconds_of(ours), seconds_of(theirs)
        times.append((ours_took, theirs_took))
    ratios = [a / b for a, b in times]
    return Row(*names, statistics.median(ratios), min(ratios), max(ratios), statistics.median(a for a, _ in times))
