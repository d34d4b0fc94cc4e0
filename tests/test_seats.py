"""Who gets which call: arithmetic on numbers worked by hand."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from workers.seats import Call, Late, Running, Seat, behind, compare, deal, late, overdue, worth_a_try


def seat(number: int, pace: float = 0.0, calls: int = 0, since: float = 0.0) -> Seat:
    """A worker that takes `pace` seconds a call and has so many, the first of which it began at `since`."""
    made = Seat(number, None, ready=True, since=since)
    made.running = {place: Running(Call(place, "attack", (), copies=1), None) for place in range(calls)}
    made.paces = {"attack": pace} if pace else {}
    return made


def calls_of(seat: Seat) -> list[Any]:
    return [running.call for running in seat.running.values()]


@pytest.mark.parametrize(
    ("paces", "slowness"),
    [
        ([1.0, 1.0, 3.0], [1, 1, 3]),
        ([1.0, 3.0], [1, 3]),  # of two, the faster one is typical
        ([2.0, 2.0, 2.0, 1.0], [1, 1, 1, 0.5]),
        ([0.0, 2.0, 4.0], [1, 1, 2]),  # one that has answered nothing yet is taken for typical
        ([5.0], [1]),
    ],
)
def test_slowness_is_the_pace_over_the_median(paces: list[float], slowness: list[float]) -> None:
    seats = [seat(number, pace) for number, pace in enumerate(paces)]
    compare(seats)
    assert [s.slowness for s in seats] == slowness


def test_a_pace_follows_the_newest_calls() -> None:
    one = seat(0)
    one.took("attack", 1.0)
    one.took("attack", 2.0)
    one.took("judge", 9.0)
    assert one.paces == pytest.approx({"attack": 1.3, "judge": 9.0})
    assert one.answers == 3


def test_who_is_behind() -> None:
    seats = [seat(0, 1.0), seat(1, 1.2), seat(2, 2.5)]
    assert behind(seats) == "attacker 2 takes 2.1x"
    assert behind(seats[:2]) == ""


@pytest.mark.parametrize(
    ("waiting", "worth"),
    [(1, False), (3, False), (4, True), (9, True)],  # two fast workers with a call each are done with 4 more after 3
)
def test_a_slow_worker_gets_a_call_that_it_is_done_with_before_the_others_are_with_all(
    waiting: int, worth: bool
) -> None:
    seats = [seat(0, 1.0, calls=1), seat(1, 1.0, calls=1), seat(2, 3.0)]
    compare(seats)
    assert worth_a_try(seats[2], seats, waiting) is worth


def test_a_slow_worker_alone_does_all() -> None:
    seats = [seat(0, 1.0), seat(1, 3.0)]
    compare(seats)
    seats[0].ready = False
    assert worth_a_try(seats[1], seats, 1)


def test_a_call_is_late_when_an_idle_worker_would_be_done_with_it_long_before() -> None:
    slow, idle = seat(0, 3.0, calls=2), seat(1, 1.0)
    first, second = calls_of(slow)
    assert late([slow, idle], idle, now=0.5) == Late(second, 1)  # 5.5 s to go, the first one 2.5 s
    second.copies = 2
    assert late([slow, idle], idle, now=0.5) == Late(first, None)
    assert late([slow, idle], idle, now=1.6) is None  # 1.4 s to go, and one second at the other: not worth it
    assert late([slow, idle], idle, now=5.0) == Late(first, None)  # two seconds late: it may hang
    first.answered = True
    assert late([slow, idle], idle, now=9.0) is None


def test_a_call_that_has_not_begun_changes_hands_as_soon_as_that_is_faster() -> None:
    equal, idle = seat(0, 1.0, calls=2), seat(1, 1.0)
    second = calls_of(equal)[1]
    assert late([equal, idle], idle, now=0.8) == Late(second, 1)  # 1.2 s to go there, 1 s here
    assert late([equal, idle], idle, now=0.95) is None  # 1.05 s


def waiting(count: int) -> deque[Call]:
    return deque(Call(number, "attack", ()) for number in range(count))


def dealt(seats: list[Seat], calls: deque[Call]) -> list[tuple[int, Any]]:
    """Who gets which call, by number; each is noted."""
    given = []
    for one, call in deal(seats, calls):
        one.running[object()] = Running(call, None)
        given.append((one.number, call.key))
    return given


def test_one_call_for_each_and_then_a_second_first_for_those_who_are_free_first() -> None:
    seats = [seat(0, 1.2), seat(1, 1.0), seat(2, 1.1), seat(3, 1.0)]
    seats[3].ready = False
    compare(seats)
    calls = waiting(8)
    assert dealt(seats, calls) == [(0, 0), (1, 1), (2, 2), (1, 3), (2, 4), (0, 5)]
    assert [call.key for call in calls] == [6, 7]  # nobody has more than two
    assert dealt(seats, calls) == []


def test_a_slow_worker_gets_the_last_call_and_only_if_it_helps() -> None:
    """Two fast ones have two calls each, done after 2 s; with 2 more after 3 s, as the slow one with one of them."""
    for left, expected in ((1, []), (2, [(2, 5)])):
        seats = [seat(0, 1.0), seat(1, 1.0), seat(2, 3.0)]
        compare(seats)
        assert dealt(seats, waiting(4 + left))[4:] == expected


def test_the_fastest_of_the_idle_gets_what_is_late() -> None:
    seats = [seat(0, 1.0, calls=1, since=-9.0), seat(1, 1.4), seat(2, 1.0)]
    compare(seats)
    found = overdue(seats, now=0.0)
    idle, call = next(found)
    assert (idle.number, call.call.key, call.queued) == (2, 0, None)
    call.call.copies += 1
    assert next(found, None) is None  # nothing is left for the other one


def test_calls_of_milliseconds_are_not_given_again() -> None:
    assert late([seat(0, 0.05, calls=2)], seat(1, 0.001), now=0.0) is None


def test_nothing_is_late_among_equals_or_strangers() -> None:
    equal, idle = seat(0, 1.0, calls=1), seat(1, 1.0)
    assert late([equal, idle], idle, now=0.1) is None
    assert late([seat(0, 9.0, calls=1)], seat(1), now=0.1) is None
    pinged = seat(0, 1.0)
    pinged.running = {0: Running(None, None)}
    assert late([pinged], idle, now=99.0) is None
