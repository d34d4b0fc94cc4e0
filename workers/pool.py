"""A pool of Ray actors that may hang, die, come and go while every call is answered exactly once.

Ray restarts an actor that died, but retries of its own would run out of order, stick to one actor and forget what it
was told; so calls are never retried by Ray. The pool queues them, gives each to any worker that is free, and gives it
to another one when the first is lost. A call carries all that it needs, so its answer is the same wherever it runs.
Every wait has a deadline. Workers are pinged before they get work, at their start and after every fault; those that
the cluster has no place for yet get work as soon as a node has come that they fit on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, final

import ray
from ray import exceptions

from workers.seats import SLOW, Answer, Call, Limits, Running, Seat, behind, compare, late, worth_a_try

# The worker is at fault.
LOST = (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.GetTimeoutError, exceptions.RaySystemError)
TRIES = 3  # of a call whose own code raises, or whose arguments cannot be read
SOON = 30.0  # seconds without a place, after which it is said
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
        self.enough = self.complete = time.monotonic()  # when there last were as many workers as must be, and all
        self.vacant: list[int] = []  # numbers of workers that were dismissed
        self.seats = [self._seat(number) for number in range(size)]

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """Queues a call under `key` and hands out what can be handed out."""
        self.waiting.append(Call(key, method, arguments))
        self._assign()

    def collect(self, keys: Sequence[Hashable]) -> list[Answer]:
        """The answers to these calls, in the order of the keys; waits for them as long as any worker can be had."""
        compare(self.seats)
        self.enough = time.monotonic()  # nobody looked since the last call was collected
        while any(key not in self.done for key in keys):
            self._turn()
        return [self.done.pop(key) for key in keys]

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

    def _assign(self) -> None:
        """Gives waiting calls to free workers; a second one only while more calls wait than there are workers."""
        ready = [seat for seat in self.seats if seat.ready]
        for depth in (1, 2):
            for seat in ready:
                if not self.waiting or (depth == 2 and len(self.waiting) <= len(ready)):
                    break
                if seat.slowness <= SLOW and len(seat.running) < depth:
                    self._give(seat, self.waiting.popleft())
        idle = [seat for seat in ready if not seat.running]
        for seat in idle:
            if self.waiting and worth_a_try(seat, self.seats, len(self.waiting)):
                self._give(seat, self.waiting.pop())
        if not self.waiting:
            self._give_again([seat for seat in idle if not seat.running])

    def _give_again(self, idle: list[Seat]) -> None:
        """Gives calls that are late to idle workers as well, the fastest first."""
        for seat in sorted(idle, key=lambda seat: seat.slowness):
            call = late(self.seats, seat, time.monotonic())
            if call is None:
                return
            self.events["given_again"] += 1
            self._give(seat, call)

    def _give(self, seat: Seat, call: Call) -> None:
        if not seat.running:
            seat.since = time.monotonic()
        report, payload = getattr(seat.actor, call.method).options(num_returns=2).remote(*call.arguments)
        seat.running[report] = Running(call, payload)
        call.copies += 1

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
        if running.call is not None:
            running.call.copies -= 1
        try:
            report = ray.get(reference, timeout=self.limits.call)
        except (exceptions.RayTaskError, exceptions.ObjectLostError) as error:
            self._blame_call(seat, running, error)
        except exceptions.TaskCancelledError:
            return  # another copy was the first
        except LOST as error:
            self._fault(seat, running, error)
        else:
            self._accept(seat, running, report)

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
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(
                f"attackers failed to start {self.events['start_failures']} times (workers.start_failures): {reason}"
            ) from error
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

    def _check_deadlines(self) -> None:
        """Restarts workers that have been at one call for too long, and gives up those that Ray cannot restart."""
        now = time.monotonic()
        for seat in self.seats:
            limit = self.limits.call if seat.ready and not seat.killed else self.limits.start
            known = seat.ready or seat.answers > 0  # a worker that never started may be waiting for resources
            if seat.running and known and now - seat.since > limit:
                self._restart(seat, now - seat.since)
        self._check_strength(now)

    def _check_strength(self, now: float) -> None:
        """Says once, and soon, that workers find no place; gives up if there are too few of them for too long."""
        ready = sum(seat.ready for seat in self.seats)
        if ready == len(self.seats):
            self.complete = now
        elif now - self.complete > SOON:
            self.complete = math.inf  # until all are there
            self.say(f"{len(self.seats) - ready} of {len(self.seats)} attackers are not there yet; {self._asked()}")
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
