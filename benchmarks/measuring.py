"""How two pieces of work are compared: in turn, several times, and the median of the ratios is quoted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
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
    note: str = ""  # what else there is to say

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


Clock = Callable[[], float]
CPU: Clock = time.process_time  # of this process: for work of one thread, and steadier on a machine with other work
WALL: Clock = time.perf_counter


def seconds_of(work: Callable[[], object], clock: Clock) -> float:
    """How long `work` takes once."""
    began = clock()
    work()
    return clock() - began


def compare(
    names: tuple[str, str], ours: Callable[[], object], theirs: Callable[[], object], clock: Clock, pairs: int = 7
) -> Row:
    """Times the two in turn, after one round that is not counted; each pair begins with the other one."""
    return paired(names, partial(seconds_of, ours, clock), partial(seconds_of, theirs, clock), pairs)


def paired(names: tuple[str, str], ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> Row:
    """As `compare`, of works that say themselves how many seconds count."""
    ours(), theirs()
    times = []
    for pair in range(pairs):
        if pair % 2:
            theirs_took, ours_took = theirs(), ours()
        else:
            ours_took, theirs_took = ours(), theirs()
        times.append((ours_took, theirs_took))
    ratios = [a / b for a, b in times]
    return Row(*names, statistics.median(ratios), min(ratios), max(ratios), statistics.median(a for a, _ in times))
