"""The pool under real faults: every call is answered once, whoever dies, hangs or cannot start."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.told import until
from workers import strength as module
from workers.pool import Pool
from workers.seats import Limits

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import this file
QUICK = Limits(call=30, start=60, start_failures=3)


class Worker:
    """An actor that answers, dies, hangs or raises when told to."""

    def __init__(self, fingerprint: str = "same", failures: str = "", pace: float = 0.0) -> None:
        if failures:  # a file whose length is how often starting has failed so far
            with Path(failures).open("a") as file:
                file.write("x")
            if Path(failures).stat().st_size <= 2:
                raise RuntimeError("no luck yet")
        self.name, self.pace = fingerprint, pace

    def fingerprint(self) -> tuple[str, None]:
        return self.name, None

    def double(self, number: int) -> tuple[int, int]:
        return 2 * number, os.getpid()

    def slow(self, seconds: float) -> tuple[float, int]:
        time.sleep(seconds)
        return seconds, os.getpid()

    def paced(self) -> tuple[float, int]:
        return self.slow(self.pace)

    def die_once(self, marker: str) -> tuple[str, int]:
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive", os.getpid()

    def hang_once(self, marker: str) -> tuple[str, int]:
        if not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return "awake", os.getpid()

    def fail(self) -> tuple[None, None]:
        raise KeyError("this call is wrong")


def hiring(**arguments: Any) -> Callable[[], Any]:
    actor = ray.remote(Worker).options(num_cpus=0.5, max_restarts=-1, max_task_retries=0)
    return lambda: actor.remote(**arguments)


@contextmanager
def pool_of(
    size: int, limits: Limits = QUICK, hire: Callable[[], Any] | None = None
) -> Iterator[tuple[Pool, list[str]]]:
    said: list[str] = []
    pool = Pool(hire or hiring(), size, limits, said.append)
    try:
        yield pool, said
    finally:
        pool.close()


def all_ready(pool: Pool) -> None:
    """Waits for all workers of a pool to start."""
    while not all(seat.ready for seat in pool.seats):
        pool._turn()


def test_answers_come_in_the_order_of_the_keys() -> None:
    with pool_of(2) as (pool, _):
        for number in range(20):
            pool.submit(number, "double", number)
        assert [answer.report for answer in pool.collect(range(19, -1, -1))] == [2 * n for n in range(19, -1, -1)]
        assert not pool.done


def test_work_is_shared_out() -> None:
    with pool_of(2) as (pool, _):
        pool.submit("warm", "slow", 0.0)
        pool.collect(["warm"])
        all_ready(pool)
        for number in range(8):
            pool.submit(number, "slow", 0.1)
        assert len({ray.get(answer.payload) for answer in pool.collect(range(8))}) == 2


def test_a_killed_workers_calls_go_to_others(tmp_path: Path) -> None:
    with pool_of(2) as (pool, said):
        pool.submit("dies", "die_once", str(tmp_path / "died"))
        for number in range(6):
            pool.submit(number, "double", number)
        answers = pool.collect(["dies", *range(6)])
        assert [a.report for a in answers] == ["alive", *(2 * n for n in range(6))]
        assert pool.events["requeues"] >= 1
        assert any("lost" in sentence for sentence in said)


def test_a_hanging_worker_is_restarted_after_the_deadline(tmp_path: Path) -> None:
    with pool_of(1, Limits(call=2, start=60)) as (pool, said):
        pool.submit("hangs", "hang_once", str(tmp_path / "hung"))
        assert pool.collect(["hangs"])[0].report == "awake"
        assert pool.events["hangs"] == 1
        assert any("gave no answer" in sentence for sentence in said)


def test_a_call_of_a_hanging_worker_is_given_to_an_idle_one_long_before_the_deadline(tmp_path: Path) -> None:
    with pool_of(2, Limits(call=600, start=60)) as (pool, _):
        all_ready(pool)
        for number in range(6):
            pool.submit(number, "hang_once", __file__)  # a marker that is there: nobody hangs
        pool.collect(range(6))
        began = time.monotonic()
        pool.submit("hangs", "hang_once", str(tmp_path / "hung"))
        assert pool.collect(["hangs"])[0].report == "awake"
        assert time.monotonic() - began < 60
        assert (pool.events["given_again"], pool.events["hangs"]) == (1, 0)


def test_a_slow_worker_does_not_set_the_pace() -> None:
    """Two workers take 0.1 s a call and one takes 1.5 s: 12 calls take 0.6 s without it, and no more with it."""
    paces = iter([0.1, 0.1, 1.5])
    actor = ray.remote(Worker).options(num_cpus=0.5)
    with pool_of(3, hire=lambda: actor.remote(pace=next(paces))) as (pool, _):
        all_ready(pool)
        seconds = []
        for turn in range(3):
            keys = [(turn, number) for number in range(12)]
            for key in keys:
                pool.submit(key, "paced")
            began = time.monotonic()
            pool.collect(keys)
            seconds.append(time.monotonic() - began)
        assert min(seconds) < 1.3, seconds
        for number in range(100):
            pool.submit(number, "paced")
        pool.collect(range(100))
        assert pool.seats[2].answers >= 2  # where there is much to do, it does its part
        assert pool.behind().startswith("attacker 2 takes")


def test_calls_given_twice_are_answered_once() -> None:
    with pool_of(3) as (pool, _):
        all_ready(pool)
        for number in range(20):
            pool.submit(number, "double", number)
            pool._assign()
            for seat in pool.seats:
                if not seat.running and pool.seats[0].running:
                    call = next(iter(pool.seats[0].running.values())).call
                    assert call is not None
                    pool._give(seat, call)
        assert [answer.report for answer in pool.collect(range(20))] == [2 * n for n in range(20)]
        pool.submit("after", "slow", 0.2)
        assert pool.collect(["after"])[0].report == 0.2
        assert not pool.done
        assert pool.events["requeues"] == 0


def test_a_worker_has_its_next_call_before_it_is_done_with_one() -> None:
    """Nobody looks at the pool while the worker does both."""
    with pool_of(1) as (pool, _):
        all_ready(pool)
        for number in range(3):
            pool.submit(number, "slow", 0.3)
        pool._assign()
        first, second = list(pool.seats[0].running)
        assert len(ray.wait([first, second], num_returns=2, timeout=60)[0]) == 2
        assert [answer.report for answer in pool.collect(range(3))] == [0.3] * 3


def test_a_queued_call_changes_hands_where_somebody_is_idle() -> None:
    """Four calls for two workers, of which the first has two long ones."""
    with pool_of(2) as (pool, _):
        all_ready(pool)
        pool.submit("known", "slow", 0.3)
        pool.submit("too", "slow", 0.3)
        pool.collect(["known", "too"])
        seconds = {"long": 3.0, "short": 0.0, "queued": 0.31, "last": 0.0}
        for key, value in seconds.items():
            pool.submit(key, "slow", value)
        answers = pool.collect(list(seconds))
        assert [answer.report for answer in answers] == list(seconds.values())
        long, short, queued, last = ray.get([answer.payload for answer in answers])
        assert long != queued == short == last
        assert pool.events["requeues"] == 0


def test_a_call_that_was_taken_from_a_worker_and_lost_by_the_next_goes_to_a_third() -> None:
    with pool_of(1) as (pool, _):
        all_ready(pool)
        pool.submit("long", "slow", 1.0)
        pool.submit("queued", "double", 4)
        pool._assign()
        ray.cancel(list(pool.seats[0].running)[1])  # as if an idle worker had got it and died before this is known
        assert [answer.report for answer in pool.collect(["long", "queued"])] == [1.0, 8]
        assert pool.events["requeues"] >= 1


def test_calls_go_on_while_something_else_is_waited_for() -> None:
    """More calls than the worker has at a time are done while another actor's call is waited for."""
    other, here = hiring()(), ray.put("here")
    never = other.slow.options(num_returns=2).remote(600)[0]
    with pool_of(1) as (pool, _):
        all_ready(pool)
        for number in range(6):
            pool.submit(number, "double", number)
        until(lambda: pool.attend([never], 0.2) == [] and len(pool.done) == 6)
        assert pool.attend([never, here], 60) == [here]
    ray.kill(other)


def test_a_worker_that_cannot_start_is_replaced(tmp_path: Path) -> None:
    with pool_of(1, hire=hiring(failures=str(tmp_path / "failures"))) as (pool, _):
        pool.submit("work", "double", 21)
        assert pool.collect(["work"])[0].report == 42
        assert pool.events["start_failures"] == 2


def test_too_many_failed_starts_stop_the_run_with_the_reason(tmp_path: Path) -> None:
    limits = Limits(call=30, start=60, start_failures=1)
    with pool_of(1, limits, hiring(failures=str(tmp_path / "failures"))) as (pool, _):
        pool.submit("work", "double", 21)
        with pytest.raises(RuntimeError, match=r"failed to start 2 times.*no luck yet"):
            pool.collect(["work"])


def test_a_call_that_raises_three_times_is_a_bug() -> None:
    with pool_of(2) as (pool, _):
        pool.submit("wrong", "fail")
        with pytest.raises(KeyError, match="this call is wrong"):
            pool.collect(["wrong"])
        assert pool.events["retries"] == 2


def test_a_worker_with_other_arithmetic_is_refused() -> None:
    names = iter(["one kind", "another kind"])
    actor = ray.remote(Worker).options(num_cpus=0.5, max_restarts=-1)
    with pool_of(2, hire=lambda: actor.remote(next(names))) as (pool, _):
        for number in range(4):
            pool.submit(number, "slow", 1.0)
        with pytest.raises(RuntimeError, match="another kind"):
            pool.collect(range(4))


def test_nothing_that_could_never_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = ray.remote(Worker).options(num_cpus=1000)
    monkeypatch.setattr(module, "SOON", 0.5)
    with pool_of(1, Limits(call=30, start=2, asks="1000 CPU"), greedy.remote) as (pool, said):
        pool.submit("work", "double", 1)
        with pytest.raises(TimeoutError, match=r"no attacker started within 2 s.*asks for 1000 CPU.*has \d+ CPU"):
            pool.collect(["work"])
    assert "1 of 1 attackers are not there yet; each asks for 1000 CPU" in said[0]


def test_fewer_workers_than_must_be_there_stop_the_run() -> None:
    wishes = iter([0.5, 1000])
    actor = ray.remote(Worker)
    limits = Limits(call=30, start=3, least=2)
    with pool_of(2, limits, lambda: actor.options(num_cpus=next(wishes)).remote()) as (pool, _):
        pool.submit("long", "slow", 60)
        with pytest.raises(TimeoutError, match=r"^1 attacker started within 3 s .* and 2 must be there"):
            pool.collect(["long"])


def test_forgotten_calls_are_not_answered() -> None:
    with pool_of(1) as (pool, _):
        pool.submit("first", "slow", 0.2)
        pool.submit("second", "double", 1)
        pool.forget()
        pool.submit("third", "double", 3)
        assert pool.collect(["third"])[0].report == 6
        assert not pool.done
