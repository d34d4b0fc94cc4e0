"""The thread that sends the records of a spool, in order, however often the tracking server goes away."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, final

from orchestrator.listener import Listener
from orchestrator.spool import MOST, Record, Spool

GATHER = 0.5  # seconds between requests while training, so that one carries several steps
FIRST_PAUSE = 0.5  # seconds after a failure; doubles with every other one
LONGEST_PAUSE = 15.0  # seconds

Item = TypeVar("Item")


class Away(Exception):  # noqa: N818 (a state, not an error)
    """The destination cannot be used now; the same records may be taken later."""


class Refused(Exception):  # noqa: N818
    """The destination is there, but does not take what these records say."""


class Destination(Protocol):
    """Where records go. Taking a record again must change nothing."""

    def connect(self) -> str:
        """Finds or makes the run; returns what tells it from other runs. Raises Away."""

    def deliver(self, records: Sequence[Record]) -> None:
        """Takes records of kinds that travel together. Raises Away or Refused."""


@final
class Sender:
    """Sends until it is stopped. Says once that the destination is away and once that it is back, never raises."""

    def __init__(self, spool: Spool, destination: Destination, listener: Listener, where: str) -> None:
        """`where` names the destination in sentences for people."""
        self._spool = spool
        self._destination = destination
        self._listener = listener
        self._where = where
        self._away = math.inf  # since when, by the monotonic clock
        self._refusals = 0
        self._news = threading.Event()  # there is something to send
        self._hurry = threading.Event()  # somebody waits for the end
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There are new records."""
        self._news.set()

    def drain(self, seconds: float, patience: float = 10.0) -> int:
        """Waits until everything has arrived, at most `seconds`, and `patience` seconds if the destination is away.

        Returns how many records still wait.
        """
        start = time.monotonic()

        def over() -> bool:
            lost = time.monotonic() - max(start, self._away) > patience
            return lost or not self._spool.waiting or not self._thread.is_alive()

        self._hurry.set()
        self._news.set()
        with self._moved:
            self._moved.wait_for(over, seconds)
        return self._spool.waiting

    def stop(self) -> None:
        """Ends the thread, after the request that is on its way; waits a moment for it."""
        self._stop.set()
        self._hurry.set()
        self._news.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        """The thread."""
        try:
            self._work()
        finally:
            self._tell()
            if not self._stop.is_set():
                self._listener.say("the thread that sends to MLflow failed; records wait until the run is resumed")

    def _work(self) -> None:
        """Sends what there is, rests, and starts again."""
        connected, pause = False, FIRST_PAUSE
        while not self._stop.is_set():
            try:
                if not connected:
                    self._spool.aim(self._destination.connect())
                connected = True
                records = self._spool.next()
                self._send(records)
            except (Away, OSError) as reason:
                self._say_away(reason)
                self._rest(pause)
                connected, pause = False, min(2 * pause, LONGEST_PAUSE)
                continue
            self._say_back(len(records))
            pause = FIRST_PAUSE
            if not records:
                self._news.wait()
                self._news.clear()
            elif len(records) < MOST:
                self._hurry.wait(GATHER)

    def _send(self, records: Sequence[Record]) -> None:
        """Delivers records; if some are refused, halves them until those are alone, and passes over them."""
        if not records:
            return
        try:
            self._destination.deliver(records)
        except Refused as reason:
            if len(records) > 1:
                half = len(records) // 2
                self._send(records[:half])
                self._send(records[half:])
                return
            self._refuse(records[0], reason)
        self._spool.arrived(records[-1])
        self._tell()

    def _refuse(self, record: Record, reason: Refused) -> None:
        """Notes a record that will never arrive; says so once."""
        self._spool.refused(record, str(reason))
        if not self._refusals:
            self._listener.say(f"MLflow refuses a {record.kind} ({reason}); it is noted, and training goes on")
        self._refusals += 1

    def _rest(self, seconds: float) -> None:
        """Waits before the next attempt; not long if somebody waits for the end."""
        if self._hurry.is_set():
            self._stop.wait(FIRST_PAUSE)
        else:
            self._hurry.wait(seconds)

    def _say_away(self, reason: Exception) -> None:
        """Says that the destination is away, if that is news."""
        if self._away == math.inf:
            self._away = time.monotonic()
            self._listener.say(f"MLflow at {self._where} is away ({reason}); training goes on, records wait on disk")
        self._tell()

    def _say_back(self, sent: int) -> None:
        """Says that the destination is back, if that is news."""
        if self._away < math.inf:
            self._away = math.inf
            self._listener.say(f"MLflow at {self._where} is back; {sent + self._spool.waiting} records waited for it")

    def _tell(self) -> None:
        """Lets `drain` look again."""
        with self._moved:
            self._moved.notify_all()


def pieces(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """`items` in pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def brief(error: Exception) -> str:
    """An error in a line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
