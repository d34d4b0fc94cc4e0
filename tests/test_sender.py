"""The thread that sends, against a destination in memory that goes away, refuses and fails as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator import sender as module
from orchestrator.sender import Away, Refused, Sender, brief, pieces
from orchestrator.spool import Record, Spool
from tests.told import PATIENCE, Told, until


class Memory:
    """A destination that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.there = True
        self.refuses: set[int] = set()
        self.breaks = False
        self.attempts = 0

    def connect(self) -> str:
        self.attempts += 1
        if not self.there:
            raise Away("nobody answers")
        return "memory"

    def deliver(self, records: Sequence[Record]) -> None:
        if not self.there:
            raise Away("nobody answers")
        if self.breaks:
            raise ZeroDivisionError
        steps = [record.body["step"] for record in records]
        if self.refuses & set(steps):
            raise Refused(f"not {sorted(self.refuses & set(steps))}")
        self.steps += steps


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spool]:
    for pause in ("GATHER", "FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(module, pause, 0.005)
    with Spool(tmp_path) as opened:
        yield opened


def record(spool: Spool, sender: Sender, steps: range) -> None:
    for step in steps:
        spool.metrics("step", step, {"loss": step})
        sender.wake()


def test_everything_arrives_once_and_in_order(spool: Spool) -> None:
    memory, told = Memory(), Told()
    sender = Sender(spool, memory, told, "memory")
    record(spool, sender, range(1000))
    assert sender.drain(PATIENCE) == 0
    sender.stop()
    assert memory.steps == list(range(1000))
    assert told.sentences == []


def test_a_destination_that_goes_away_twice_is_announced_each_time_once(spool: Spool) -> None:
    memory, told = Memory(), Told()
    memory.there = False
    sender = Sender(spool, memory, told, "memory")
    for start in (0, 20):
        memory.there = False
        record(spool, sender, range(start, start + 10))
        attempts = memory.attempts
        until(lambda before=attempts: memory.attempts > before + 3)  # type: ignore[misc]
        memory.there = True
        record(spool, sender, range(start + 10, start + 20))
        until(lambda: spool.waiting == 0 and len(told.sentences) % 2 == 0)
    sender.stop()
    assert memory.steps == list(range(40))
    assert ["away" in sentence for sentence in told.sentences] == [True, False, True, False]
    assert "nobody answers" in told.sentences[0]
    assert all("is back" in sentence for sentence in told.sentences[1::2])


def test_the_end_of_a_run_does_not_wait_for_ever(spool: Spool) -> None:
    memory = Memory()
    memory.there = False
    sender = Sender(spool, memory, Told(), "memory")
    record(spool, sender, range(7))
    assert sender.drain(PATIENCE, patience=0.05) == 7
    sender.stop()
    memory.there = True
    after = Sender(spool, memory, Told(), "memory")
    assert after.drain(PATIENCE) == 0
    after.stop()
    assert memory.steps == list(range(7))


def test_refused_records_are_passed_over_and_noted(spool: Spool, tmp_path: Path) -> None:
    memory, told = Memory(), Told()
    memory.refuses = {3, 8}
    for step in range(20):
        spool.metrics("step", step, {"loss": step})
    sender = Sender(spool, memory, told, "memory")
    assert sender.drain(PATIENCE) == 0
    sender.stop()
    assert memory.steps == [step for step in range(20) if step not in memory.refuses]
    assert len(told.sentences) == 1
    assert "refuses" in told.sentences[0]
    assert [line[:12] for line in (tmp_path / "refused.jsonl").read_text().splitlines()] == [
        '{"number": 4',
        '{"number": 9',
    ]


def test_a_fault_of_ours_ends_the_thread_and_is_said(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda fault: faults.append(fault.exc_type))
    memory, told = Memory(), Told()
    memory.breaks = True
    sender = Sender(spool, memory, told, "memory")
    record(spool, sender, range(5))
    assert sender.drain(PATIENCE) == 5
    until(lambda: faults == [ZeroDivisionError])
    assert len(told.sentences) == 1
    assert spool.metrics("step", 5, {"loss": 5})  # training goes on


def test_a_long_error_becomes_a_line() -> None:
    assert brief(ValueError("a\n  b")) == "a b"
    assert len(brief(ValueError("x" * 1000))) == 300


def test_pieces() -> None:
    assert list(pieces([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(pieces([], 2)) == []
