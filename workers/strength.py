"""Whether a pool has as many workers as it should: what is said when it has not, and when it gives up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import final

import ray

from workers.seats import Limits, Seat

SOON = 30.0  # seconds without a place, after which it is said


@final
class Strength:
    """Watches how many workers are there, whenever it is shown them."""

    def __init__(self, limits: Limits, say: Callable[[str], None]) -> None:
        self.limits, self.say = limits, say
        self.enough = self.complete = time.monotonic()  # when there last were as many workers as must be, and all

    def begin(self) -> None:
        """Nobody looked for a while: it is not held against the workers."""
        self.enough = time.monotonic()

    def check(self, seats: Sequence[Seat], now: float) -> None:
        """Says once, and soon, that workers find no place. Raises TimeoutError if there are too few for too long."""
        ready = sum(seat.ready for seat in seats)
        if ready == len(seats):
            self.complete = now
        elif now - self.complete > SOON:
            self.complete = math.inf  # until all are there
            self.say(f"{len(seats) - ready} of {len(seats)} attackers are not there yet; {self._asked()}")
        if ready >= self.limits.least:
            self.enough = now
        elif now - self.enough > self.limits.start:
            raise TimeoutError(
                f"{ready or 'no'} attacker started within {self.limits.start:.0f} s (workers.start_deadline), and"
                f" {self.limits.least} must be there (workers.least_attackers); {self._asked()}"
            )

    def _asked(self) -> str:
        """What the workers ask for, and what there is."""
        there, free = ray.cluster_resources(), ray.available_resources()
        found = [f"{there.get(name, 0):g} {name} ({free.get(name, 0):g} free)" for name in ("CPU", "GPU")]
        return f"each asks for {self.limits.asks or 'a place'}, and the cluster has {', '.join(found)}"
