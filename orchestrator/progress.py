"""Progress for a person: bars on a terminal, and elsewhere a plain line every some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from orchestrator.listener import Listener

EVERY = 10.0  # seconds between two lines about one stage


@contextmanager
def listening(stream: TextIO) -> Iterator[Listener]:
    """A listener that writes to `stream` in the manner that suits it."""
    if not stream.isatty():
        yield Lines(stream)
        return
    bars = Bars(Console(file=stream))
    with bars.progress:
        yield bars


@final
class Bars(Listener):
    """A bar for each stage: how much is done, how fast, how long it will take, and what is worth knowing now."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self.tasks: dict[str, TaskID] = {}

    def begin(self, stage: str, total: int, unit: str) -> None:
        """A bar appears."""
        self.tasks[stage] = self.progress.add_task(stage, total=total, unit=unit, note="")

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """The bar grows."""
        self.progress.update(self.tasks[stage], completed=done, note=note)

    def end(self, stage: str) -> None:
        """The bar stays as it is; what it said is not news any more."""
        self.progress.update(self.tasks[stage], note="")
        self.progress.stop_task(self.tasks[stage])

    def say(self, message: str) -> None:
        """A line above the bars."""
        self.progress.console.print(message, markup=False, highlight=False, soft_wrap=True)


@final
class Lines(Listener):
    """What a log wants: no control characters, few lines."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.stages: dict[str, tuple[int, str]] = {}  # total and unit
        self.began: dict[str, tuple[float, int]] = {}  # when the first units were done, and how many
        self.spoke: dict[str, float] = {}

    def begin(self, stage: str, total: int, unit: str) -> None:
        """The first line comes when there is something to say."""
        self.stages[stage] = total, unit
        self.spoke[stage] = self.clock()
        self.began.pop(stage, None)

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """A line, if the last one is some seconds old."""
        now = self.clock()
        began, first = self.began.setdefault(stage, (now, done))
        if now - self.spoke[stage] < EVERY:
            return
        self.spoke[stage] = now
        total, unit = self.stages[stage]
        left = (total - done) * (now - began) / (done - first) if done > first else None
        parts = [f"{stage}: {done} of {total} {unit}", "" if left is None else f"{_duration(left)} left", note]
        self._write(", ".join(part for part in parts if part))

    def end(self, stage: str) -> None:
        """Nothing: what comes next says so."""

    def say(self, message: str) -> None:
        """A line."""
        self._write(message)

    def _write(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
