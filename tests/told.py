"""What tests of threads and processes need: listeners that remember, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 120.0  # seconds that a test waits before it gives up


class Told:
    """A listener that remembers what was said, and expects nothing else."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, message: str) -> None:
        self.sentences.append(message)

    def begin(self, stage: str, total: int, unit: str) -> None:
        raise AssertionError

    def advance(self, stage: str, done: int, note: str = "") -> None:
        raise AssertionError

    def end(self, stage: str) -> None:
        raise AssertionError


class Heard:
    """A listener that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def begin(self, stage: str, total: int, unit: str) -> None: ...

    def advance(self, stage: str, done: int, note: str = "") -> None: ...

    def end(self, stage: str) -> None: ...


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread or process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
