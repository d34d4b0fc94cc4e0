"""A pool of Ray actors that may hang, die, come and go while every call is answered exactly once.

Ray restarts an actor that died, but retries of its own would run out of order, stick to one actor and forget what it
was told; so calls are never retried by Ray. The pool queues them, gives each to any worker that is free, and gives it
to another one when the first is lost. A call carries all that it needs, so its answer is the same wherever it runs.
Every wait has a deadline. Workers are pinged before they get work, at their start and after every fault.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

LOST = (
    RayActorError,
    WorkerCrashedError,
    TaskCancelledError,
    GetTimeoutError,
    RaySystemError,
)  # the worker is at fault
TRIES = 3  # of a call whose own code raises, or whose arguments cannot be read
FAULTS = 3  # in a row before a worker is replaced rather than restarted


class Answer(NamedTuple):
    """What a call returned: its report, here, and its payload, wherever the worker left it."""

    report: Any
    payload: Any


class ArgumentLost(Exception):  # noqa: N818
    """An object that a call needs is gone with the process or node that held it."""


@dataclass
class Call:
    """A call that waits or runs."""

    key: Hashable
    method: str
    arguments: tuple[Any, ...]
    failures: int = 0


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
    seconds: float = 0.0  # spent on them


@dataclass(frozen=True)
class Limits:
    """How long is waited, and how much is borne. Seconds and counts."""

    call: float = 600.0
    start: float = 180.0
    start_failures: int = 3


@final
class Pool:
    """Calls in, answers out; see the module's docstring."""

    def __init__(self, hire: Callable[[], Any], size: int, limits: Limits, say: Callable[[str], None]) -> None:
        self.hire, self.limits, self.say = hire, limits, say
        self.waiting: deque[Call] = deque()
        self.done: dict[Hashable, Answer] = {}
        self.events: Counter[str] = Counter()
        self.fingerprint: Any = None
        self.last_ready = time.monotonic()
        self.seats = [self._seat(number) for number in range(size)]

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """Queues a call under `key` and hands out what can be handed out."""
        self.waiting.append(Call(key, method, arguments))
        self._assign()

    def collect(self, keys: Sequence[Hashable]) -> list[Answer]:
        """The answers to these calls, in the order of the keys; waits for them as long as any worker can be had."""
        while any(key not in self.done for key in keys):
            self._turn()
        return [self.done.pop(key) for key in keys]

    def forget(self) -> None:
        """Drops every call that waits and every answer that was not collected; calls that run end unheard."""
        self.waiting.clear()
        self.done.clear()
        for seat in self.seats:
            for running in seat.running.values():
                running.call = None

    def close(self) -> None:
        """Ends the workers."""
        for seat in self.seats:
            ray.kill(seat.actor)

    def behind(self) -> str:
        """The worker that takes longest, where it takes at least half as long again as the others do."""
        mean = {s.number: s.seconds / s.answers for s in self.seats if s.answers}
        if len(mean) < 2:
            return ""
        slowest = max(mean, key=lambda number: mean[number])
        others = sum(v for number, v in mean.items() if number != slowest) / (len(mean) - 1)
        return f"attacker {slowest} takes {mean[slowest] / others:.1f}x" if mean[slowest] > 1.5 * others else ""

    def _seat(self, number: int) -> Seat:
        seat = Seat(number, self.hire())
        self._ping(seat)
        return seat

    def _ping(self, seat: Seat) -> None:
        seat.ready, seat.killed, seat.since = False, False, time.monotonic()
        report, payload = seat.actor.fingerprint.options(num_returns=2).remote()
        seat.running[report] = Running(None, payload)

    def _assign(self) -> None:
        """Gives waiting calls to free workers; a second one only while more calls wait than there are workers."""
        ready = [seat for seat in self.seats if seat.ready]
        for depth in (1, 2):
            for seat in ready:
                if not self.waiting or (depth == 2 and len(self.waiting) <= len(ready)):
                    return
                if len(seat.running) < depth:
                    self._give(seat, self.waiting.popleft())

    def _give(self, seat: Seat, call: Call) -> None:
        if not seat.running:
            seat.since = time.monotonic()
        report, payload = getattr(seat.actor, call.method).options(num_returns=2).remote(*call.arguments)
        seat.running[report] = Running(call, payload)

    def _turn(self) -> None:
        """Waits up to a second for something to happen, and deals with all that has."""
        self._assign()
        owner = {reference: seat for seat in self.seats for reference in seat.running}
        first, rest = ray.wait(list(owner), num_returns=1, timeout=1.0, fetch_local=False)
        more = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0] if first and rest else []
        for reference in (*first, *more):
            if reference in owner[reference].running:
                self._settle(owner[reference], reference)
        self._check_deadlines()
        self._assign()

    def _settle(self, seat: Seat, reference: Any) -> None:
        """Deals with a call that has ended, one way or another."""
        running = seat.running.pop(reference)
        try:
            report = ray.get(reference, timeout=self.limits.call)
        except (RayTaskError, ObjectLostError) as error:
            self._blame_call(seat, running, error)
        except LOST as error:
            self._fault(seat, running, error)
        else:
            self._accept(seat, running, report)

    def _accept(self, seat: Seat, running: Running, report: Any) -> None:
        now = time.monotonic()
        if running.call is not None:
            self.done[running.call.key] = Answer(report, running.payload)
            seat.answers, seat.seconds = seat.answers + 1, seat.seconds + now - seat.since
        elif not seat.ready and not seat.running:
            self._welcome(seat, report)
        seat.since, seat.faults = now, 0

    def _welcome(self, seat: Seat, fingerprint: Any) -> None:
        """Takes a worker that has started, unless its arithmetic differs from the others'."""
        if self.fingerprint is None:
            self.fingerprint = fingerprint
        if fingerprint != self.fingerprint:
            raise RuntimeError(
                f"attacker {seat.number} computes with {fingerprint}, the others with {self.fingerprint}: results "
                "would depend on who works on what. Use machines of one kind, with the same packages and threads"
            )
        seat.ready = True

    def _blame_call(self, seat: Seat, running: Running, error: RayError) -> None:
        """A call raised, or could not read its arguments: the worker is well, the call may be tried again."""
        seat.since = time.monotonic()
        call = running.call
        if call is None:
            if not seat.ready:
                self._fault(seat, running, error)
            return
        call.failures += 1
        if call.failures < TRIES:
            self.events["retries"] += 1
            self.waiting.appendleft(call)
            return
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, ObjectLostError) or isinstance(error, ObjectLostError):
            raise ArgumentLost(str(call.key)) from error
        raise cause from error

    def _fault(self, seat: Seat, running: Running, error: RayError) -> None:
        """A worker is lost, or did not start: others get its calls, and it is pinged or replaced."""
        lost = [running, *seat.running.values()]
        seat.running.clear()
        for call in reversed([r.call for r in lost if r.call is not None]):
            self.waiting.appendleft(call)
            self.events["requeues"] += 1
        seat.faults += 1
        if running.call is not None:
            self.say(f"attacker {seat.number} was lost; its work goes to another")
        if seat.faults >= FAULTS or isinstance(error, ActorDiedError):
            self._replace(seat, error)
        else:
            self.events["restarts"] += 1
            self._ping(seat)

    def _replace(self, seat: Seat, error: RayError) -> None:
        self.events["replacements"] += 1
        if not seat.answers:
            self.events["start_failures"] += 1
        if self.events["start_failures"] > self.limits.start_failures:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(
                f"attackers failed to start {self.events['start_failures']} times (workers.start_failures): {reason}"
            ) from error
        with contextlib.suppress(RayError):
            ray.kill(seat.actor)
        seat.actor, seat.faults, seat.answers = self.hire(), 0, 0
        self.say(f"attacker {seat.number} is replaced by a new one")
        self._ping(seat)

    def _restart(self, seat: Seat, waited: float) -> None:
        """Kills a worker that hangs; its references then fail and are settled. One killed before is given up."""
        self.say(f"attacker {seat.number} gave no answer for {waited:.0f} s and is restarted")
        self.events["hangs"] += 1
        if seat.killed:
            self._fault(seat, seat.running.pop(next(iter(seat.running))), ActorDiedError())
            return
        seat.since, seat.killed = time.monotonic(), True
        ray.kill(seat.actor, no_restart=False)

    def _check_deadlines(self) -> None:
        """Restarts workers that have been at one call for too long, and gives up those that Ray cannot restart."""
        now = time.monotonic()
        for seat in self.seats:
            limit = self.limits.call if seat.ready and not seat.killed else self.limits.start
            known = seat.ready or seat.answers > 0  # a worker that never started may be waiting for resources
            if seat.running and known and now - seat.since > limit:
                self._restart(seat, now - seat.since)
        if any(seat.ready for seat in self.seats):
            self.last_ready = now
        elif now - self.last_ready > self.limits.start:
            raise TimeoutError(
                f"no attacker started within {self.limits.start:.0f} s (workers.start_deadline); "
                f"asked for {len(self.seats)}, and the cluster has free: {ray.available_resources()}"
            )
