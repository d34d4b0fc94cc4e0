"""What a pool knows of its workers: which calls each one has, since when, and how fast it is.

A call carries all that it needs, so two workers may have the same one; the first answer counts. That is how one slow
worker is kept from setting the pace of all: it gets a call only if it will be done before the others would have got
round to it, and a call that it keeps for too long is given to an idle worker as well. The others have a second call
queued while they work on one, so that they need not wait for the driver; it changes hands where somebody is idle.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

SLOW = 1.5  # times the typical seconds a call: a worker that needs more is slow
LATE = 1.5  # times the seconds that an idle worker would need for a call: one that takes longer yet is given again
QUEUED = 1.1  # the same for a call that has not begun: it changes hands, so that nothing is made twice
SHORT = 0.2  # seconds that a call must still take to be worth giving again
NEWS = 0.3  # weight of the newest call in the moving average


class Answer(NamedTuple):
    """What a call returned: its report, here, and its payload, wherever the worker left it."""

    report: Any
    payload: Any


@dataclass(frozen=True)
class Limits:
    """How long is waited, and how much is borne. Seconds and counts."""

    call: float = 600.0
    start: float = 180.0
    start_failures: int = 3
    least: int = 1  # workers; with fewer for `start` seconds the pool gives up
    asks: str = ""  # what one worker asks the cluster for, in words


@dataclass(eq=False)
class Call:
    """A call that waits or runs."""

    key: Hashable
    method: str
    arguments: tuple[Any, ...]
    failures: int = 0
    copies: int = 0  # workers that have it
    answered: bool = False  # or not wanted any more: nobody listens to the other copies


@dataclass
class Running:
    """A call at a worker."""

    call: Call | None  # None: a ping
    payload: Any


@dataclass(eq=False)
class Seat:
    """A worker's place in the pool."""

    number: int
    actor: Any
    running: dict[Any, Running] = field(default_factory=dict)  # by the reference of the report, oldest first
    ready: bool = False  # has answered its last ping
    since: float = field(default_factory=time.monotonic)  # when the oldest call was given, or the one before it ended
    killed: bool = False  # for taking too long; its calls are about to fail
    faults: int = 0  # in a row
    answers: int = 0
    paces: dict[str, float] = field(default_factory=dict)  # seconds a call, by its method; a moving average
    slowness: float = 1.0  # its pace over the typical one
    busy: float = 0.0  # seconds at calls that it answered, in all

    def took(self, method: str, seconds: float) -> None:
        """Takes note of a call that ended."""
        before = self.paces.get(method, seconds)
        self.paces[method] = before + NEWS * (seconds - before)
        self.answers += 1
        self.busy += seconds

    def free_at(self) -> float:
        """When it will be done with the call that it has, if that takes as long as its calls did on the average."""
        return self.since + (statistics.fmean(self.paces.values()) if self.paces else 0.0)


@final
class Watch:
    """How busy workers were between two looks at them."""

    def __init__(self) -> None:
        self.last, self.busy = time.monotonic(), 0.0

    def look(self, seats: Sequence[Seat]) -> dict[str, float]:
        """How many work, how many calls they have, and the share of their time that they were idle since the last look.

        A call counts when it ends, so the share of a short while is a rough one, and 0 where long calls ended.
        """
        now, busy = time.monotonic(), sum(seat.busy for seat in seats)
        ready = sum(seat.ready for seat in seats)
        idle = 1 - (busy - self.busy) / max(ready * (now - self.last), 1e-9)
        self.last, self.busy = now, busy
        calls = sum(running.call is not None for seat in seats for running in seat.running.values())
        return {"attackers": float(ready), "shards_in_flight": float(calls), "idle_share": min(max(idle, 0.0), 1.0)}


def compare(seats: Sequence[Seat]) -> None:
    """Works out the slowness of each worker: the mean over methods of its pace over the median pace, of two
    the smaller one.
    """
    methods = {method for seat in seats for method in seat.paces}
    typical = {m: statistics.median_low([s.paces[m] for s in seats if m in s.paces]) for m in methods}
    for seat in seats:
        ratios = [pace / typical[method] for method, pace in seat.paces.items() if typical[method] > 0]
        seat.slowness = statistics.fmean(ratios) if ratios else 1.0


def behind(seats: Sequence[Seat]) -> str:
    """The worker that takes longest, in words, where it is slow; else nothing."""
    compare(seats)
    worst = max(seats, key=lambda seat: seat.slowness)
    return f"attacker {worst.number} takes {worst.slowness:.1f}x" if worst.slowness > SLOW else ""


def deal(seats: Sequence[Seat], waiting: deque[Call]) -> Iterator[tuple[Seat, Call]]:
    """Who gets which of the waiting calls now. Each is to be noted at its worker before the next is asked for.

    One call for each worker that is not slow, then a second, where those come first that will be free first. A slow
    one gets one only where that helps.
    """
    if not waiting:
        return
    ready = [seat for seat in seats if seat.ready]
    for depth in (1, 2):
        free = [seat for seat in ready if seat.slowness <= SLOW and len(seat.running) < depth]
        for seat in sorted(free, key=Seat.free_at) if depth == 2 else free:
            if not waiting:
                return
            yield seat, waiting.popleft()
    for seat in [seat for seat in ready if not seat.running]:
        if waiting and worth_a_try(seat, seats, len(waiting)):
            yield seat, waiting.pop()


def worth_a_try(slow: Seat, others: Iterable[Seat], waiting: int) -> bool:
    """Whether a slow worker would be done with the last of the waiting calls before the others were with all of them.

    In units of a typical call: the others need (running + waiting) / rate, where rate is the sum of their speeds.
    """
    rate = running = 0.0
    for seat in others:
        if seat.ready and seat.slowness <= SLOW:
            rate += 1 / seat.slowness
            running += len(seat.running)
    return slow.slowness * rate <= running + waiting


class Late(NamedTuple):
    """A call that an idle worker should get."""

    call: Call
    queued: Any  # the reference of its report where it is, if it has not begun there; else None


def late(seats: Iterable[Seat], idle: Seat, now: float) -> Late | None:
    """The call that an idle worker would be done with long before the one that has it; None if there is none.

    What a call will still take follows from its place and the worker's pace; a call that is overdue is expected to take
    as long again as it is late.
    """
    found, longest = None, 0.0
    for seat in seats:
        for place, (reference, running) in enumerate(seat.running.items()):
            call = running.call
            if call is None or call.answered or call.copies > 1 or call.method not in idle.paces:
                continue
            pace = idle.paces[call.method]
            expected = (place + 1) * seat.paces.get(call.method, pace)
            left = abs(expected - (now - seat.since))
            if left > max(longest, SHORT, (QUEUED if place else LATE) * pace):
                found, longest = Late(call, reference if place else None), left
    return found


def overdue(seats: Sequence[Seat], now: float) -> Iterator[tuple[Seat, Late]]:
    """Which idle worker gets which call of another, the fastest first; see `deal` about noting them."""
    idle = [seat for seat in seats if seat.ready and not seat.running]
    for seat in sorted(idle, key=lambda seat: seat.slowness):
        found = late(seats, seat, now)
        if found is None:
            return
        yield seat, found
