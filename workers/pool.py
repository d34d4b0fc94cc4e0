"""A pool of Ray actors that may hang, die, come and go while every call is answered exactly once.

Ray restarts an actor that died, but retries of its own would run out of order, stick to one actor and forget what it
was told; so calls are never retried by Ray. The pool queues them, gives each to any worker that is free, and gives it
to another one when the first is lost. A call carries all that it needs, so its answer is the same wherever it runs.
Every wait has a deadline. Workers are pinged before they get work, at their start and after every fault; those that
the cluster has no place for yet get work as soon as a node has come that they fit on.

A worker has a second call queued while it works on one, so that it never waits for the driver in between. Work is given
out and taken in whenever somebody waits for something: `collect` for answers, `attend` for what others do meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, final

import ray
from ray import exceptions

from workers.outcomes import LOST, outcomes
from workers.seats import Answer, Call, Limits, Running, Seat, behind, compare, deal, overdue
from workers.strength import Strength

TRIES = 3  # of a call whose own code raises, or whose arguments cannot be read
LOOK = 0.05  # seconds between two looks for workers that are late or hang: each costs a walk over all
PATIENCE = 1.0  # seconds that nothing happens before everything is looked at
FAULTS = 3  # in a row before a worker is replaced rather than restarted


class ArgumentLost(Exception):  # noqa: N818
    """An object that a call needs is gone with the process or node that held it."""


@final
class Pool:
    """Calls in, answers out; see the module's docstring."""

    def __init__(self, hire: Callable[[], Any], size: int, limits: Limits, say: Callable[[str], None]) -> None:
        self.hire, self.limits, self.say = hire, limits, say
        self.waiting: deque[Call] = deque()
        self.done: dict[Hashable, Answer] = {}
        self.events: Counter[str] = Counter()
        self.fingerprint: Any = None
        self.strength = Strength(limits, say)
        self.looked = time.monotonic()
        self.vacant: list[int] = []  # numbers of workers that were dismissed
        self.seats = [self._seat(number) for number in range(size)]

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """Queues a call under `key`; it is given out when somebody waits, with all that were queued before."""
        self.waiting.append(Call(key, method, arguments))

    def collect(self, keys: Sequence[Hashable]) -> list[Answer]:
        """The answers to these calls, in the order of the keys; waits for them as long as any worker can be had."""
        self._begin()
        while any(key not in self.done for key in keys):
            self._turn()
        return [self.done.pop(key) for key in keys]

    def attend(self, references: Sequence[Any], seconds: float) -> list[Any]:
        """Those of others' calls that have ended, or none within so many seconds; the pool's work goes on meanwhile."""
        self._begin()
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            ended = self._turn(references, max(0.0, min(left, PATIENCE)))
            if ended or left <= 0:
                return ended

    def forget(self) -> None:
        """Drops every call that waits and every answer that was not collected; calls that run end unheard."""
        self.waiting.clear()
        self.done.clear()
        for call in [running.call for seat in self.seats for running in seat.running.values()]:
            if call is not None:
                call.answered = True

    def close(self) -> None:
        """Ends the workers."""
        for seat in self.seats:
            ray.kill(seat.actor)

    def dismiss(self) -> bool:
        """Ends a worker that has a place, and those that wait for one, for somebody else to have it; says if any had.

        Others get their calls. `refill` asks for new ones.
        """
        placed = [seat for seat in self.seats if seat.ready][-1:]
        for seat in [*placed, *(seat for seat in self.seats if not seat.ready)]:
            self.seats.remove(seat)
            self.vacant.append(seat.number)
            self._take_back(list(seat.running.values()))
            ray.kill(seat.actor)
        return bool(placed)

    def refill(self) -> None:
        """Hires for the places of those that were dismissed."""
        self.seats += [self._seat(number) for number in self.vacant]
        self.vacant.clear()

    def behind(self) -> str:
        """The worker that takes longest, where it takes at least half as long again as is typical."""
        return behind(self.seats)

    def _seat(self, number: int) -> Seat:
        seat = Seat(number, self.hire())
        self._ping(seat)
        return seat

    def _ping(self, seat: Seat) -> None:
        seat.ready, seat.killed, seat.since = False, False, time.monotonic()
        seat.paces.clear()  # it may come back on another machine
        report, payload = seat.actor.fingerprint.options(num_returns=2).remote()
        seat.running[report] = Running(None, payload)

    def _begin(self) -> None:
        """Somebody waits from now on: what was queued is given out."""
        compare(self.seats)
        self.strength.begin()
        self._assign()

    def _assign(self) -> None:
        for seat, call in deal(self.seats, self.waiting):
            self._give(seat, call)

    def _give_again(self, now: float) -> None:
        """Gives calls that are late to idle workers as well; those that have not begun change hands."""
        for seat, found in overdue(self.seats, now):
            self._give(seat, found.call)
            if found.queued is None:
                self.events["given_again"] += 1
            else:
                ray.cancel(found.queued)  # if it has begun after all, the first answer counts

    def _give(self, seat: Seat, call: Call) -> None:
        if not seat.running:
            seat.since = time.monotonic()
        report, payload = getattr(seat.actor, call.method).options(num_returns=2).remote(*call.arguments)
        seat.running[report] = Running(call, payload)
        call.copies += 1

    def _turn(self, others: Sequence[Any] = (), patience: float = PATIENCE) -> list[Any]:
        """Waits for something to happen, and deals with all that has; returns those of other calls that have ended."""
        owner = {reference: seat for seat in self.seats for reference in seat.running}
        if not self.waiting and any(not seat.running for seat in self.seats):
            patience = min(patience, 2 * LOOK)  # somebody is idle: soon a call may be late
        first, rest = ray.wait([*owner, *others], num_returns=1, timeout=patience, fetch_local=False)
        more = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0] if first and rest else []
        ended = [*first, *more]
        self._settle(owner, [reference for reference in ended if reference in owner])
        now = time.monotonic()
        if now - self.looked >= LOOK:
            self.looked = now
            self._look(now)
        self._assign()
        return [reference for reference in ended if reference not in owner]

    def _look(self, now: float) -> None:
        """At workers that are late, hang, or are not there."""
        self._check_deadlines(now)
        self.strength.check(self.seats, now)
        if not self.waiting:
            self._give_again(now)

    def _settle(self, owner: dict[Any, Seat], ended: Sequence[Any]) -> None:
        """Deals with calls that have ended, one way or another."""
        for reference, outcome in zip(ended, outcomes(ended, self.limits.call), strict=True):
            seat = owner[reference]
            if reference in seat.running:  # else the worker was given up a moment ago
                running = seat.running.pop(reference)
                if running.call is not None:
                    running.call.copies -= 1
                self._take(seat, running, outcome)

    def _take(self, seat: Seat, running: Running, outcome: Any) -> None:
        """Deals with what a call has left: its report, or an error of Ray's."""
        match outcome:
            case exceptions.RayTaskError() | exceptions.ObjectLostError():
                self._blame_call(seat, running, outcome)
            case exceptions.TaskCancelledError():
                if running.call is not None:
                    running.call.copies += 1  # taken back: whoever should have it instead may be lost by now
                self._take_back([running])
            case _ if isinstance(outcome, LOST):
                self._fault(seat, running, outcome)
            case exceptions.RayError():
                raise outcome
            case _:
                self._accept(seat, running, outcome)

    def _accept(self, seat: Seat, running: Running, report: Any) -> None:
        now = time.monotonic()
        if running.call is not None:
            seat.took(running.call.method, now - seat.since)
            if not running.call.answered:
                self._answer(running.call, Answer(report, running.payload))
        elif not seat.ready and not seat.running:
            self._welcome(seat, report)
        seat.since, seat.faults = now, 0

    def _answer(self, call: Call, answer: Answer) -> None:
        """Keeps the first answer to a call, and takes copies of it back that no worker has begun yet."""
        call.answered = True
        self.done[call.key] = answer
        if call.copies:
            queued = [list(seat.running.items())[1:] for seat in self.seats]
            for reference in [r for pairs in queued for r, running in pairs if running.call is call]:
                ray.cancel(reference)

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

    def _blame_call(self, seat: Seat, running: Running, error: exceptions.RayError) -> None:
        """A call raised, or could not read its arguments: the worker is well, the call may be tried again."""
        seat.since = time.monotonic()
        call = running.call
        if call is None:
            if not seat.ready:
                self._fault(seat, running, error)
            return
        if call.answered:
            return
        call.failures += 1
        if call.failures < TRIES:
            self.events["retries"] += 1
            self.waiting.appendleft(call)
            return
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, exceptions.ObjectLostError) or isinstance(error, exceptions.ObjectLostError):
            raise ArgumentLost(str(call.key)) from error
        raise cause from error

    def _fault(self, seat: Seat, running: Running, error: exceptions.RayError) -> None:
        """A worker is lost, or did not start: others get its calls, and it is pinged or replaced."""
        if running.call is not None:
            running.call.copies += 1  # taken back with the rest
        self._take_back([running, *seat.running.values()])
        seat.running.clear()
        seat.faults += 1
        if running.call is not None:
            self.say(f"attacker {seat.number} was lost; its work goes to another")
        if seat.faults >= FAULTS or isinstance(error, exceptions.ActorDiedError):
            self._replace(seat, error)
        else:
            self.events["restarts"] += 1
            self._ping(seat)

    def _take_back(self, lost: Sequence[Running]) -> None:
        """Puts calls of a worker that is gone back in front, unless another one has them."""
        calls = [running.call for running in lost if running.call is not None]
        for call in reversed(calls):
            call.copies -= 1
            if not call.answered and not call.copies:
                self.waiting.appendleft(call)
                self.events["requeues"] += 1

    def _replace(self, seat: Seat, error: exceptions.RayError) -> None:
        self.events["replacements"] += 1
        if not seat.answers:
            self.events["start_failures"] += 1
        if self.events["start_failures"] > self.limits.start_failures:
            reason, times = str(error).strip().splitlines()[-1], self.events["start_failures"]
            raise RuntimeError(f"attackers failed to start {times} times (workers.start_failures): {reason}") from error
        with contextlib.suppress(exceptions.RayError):
            ray.kill(seat.actor)
        seat.actor, seat.faults, seat.answers = self.hire(), 0, 0
        self.say(f"attacker {seat.number} is replaced by a new one")
        self._ping(seat)

    def _restart(self, seat: Seat, waited: float) -> None:
        """Kills a worker that hangs; its references then fail and are settled. One killed before is given up."""
        self.say(f"attacker {seat.number} gave no answer for {waited:.0f} s and is restarted")
        self.events["hangs"] += 1
        if seat.killed:
            self._fault(seat, seat.running.pop(next(iter(seat.running))), exceptions.ActorDiedError())
            return
        seat.since, seat.killed = time.monotonic(), True
        ray.kill(seat.actor, no_restart=False)

    def _check_deadlines(self, now: float) -> None:
        """Restarts workers that have been at one call for too long, and gives up those that Ray cannot restart."""
        for seat in self.seats:
            limit = self.limits.call if seat.ready and not seat.killed else self.limits.start
            known = seat.ready or seat.answers > 0  # a worker that never started may be waiting for resources
            if seat.running and known and now - seat.since > limit:
                self._restart(seat, now - seat.since)
