"""What a run is doing now, read from its folder by any process: nothing is asked of the run itself."""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import dataclass
from typing import Literal, final

from orchestrator.folders import RunFolder
from orchestrator.history import History, history
from orchestrator.spool import CURSOR, RECORDS

RECENT = 20  # steps that the speed is averaged over


@final
@dataclass(frozen=True, kw_only=True)
class Status:
    """A run at a glance."""

    run: str
    state: Literal["running", "stopped", "finished"]
    steps: int  # updates made
    of: int  # updates in all; 0: not known yet
    seconds_left: float | None  # at the speed of the last steps; None: not running, or too early to say
    seconds_silent: float | None  # since the last record; None: nothing recorded yet
    records_waiting: int  # for MLflow, to be sent
    metrics: dict[str, float]  # the last value of each


def status(folder: RunFolder) -> Status:
    """The state of a run."""
    known = history(folder)
    steps = int(max((points[-1][0] for points in known.series.values()), default=0))
    of = planned(folder)
    state: Literal["running", "stopped", "finished"] = "running" if is_locked(folder) else "stopped"
    if folder.summary.is_file():
        state = "finished"
    records = folder.records / RECORDS
    return Status(
        run=folder.name,
        state=state,
        steps=steps,
        of=of,
        seconds_left=time_left(known, of - steps) if state == "running" and of else None,
        seconds_silent=time.time() - records.stat().st_mtime if records.is_file() else None,
        records_waiting=waiting(folder),
        metrics={name: points[-1][1] for name, points in sorted(known.series.items())},
    )


def waiting(folder: RunFolder) -> int:
    """How many records MLflow does not have yet."""
    records, cursor = folder.records / RECORDS, folder.records / CURSOR
    written = records.read_bytes().count(b"\n") if records.is_file() else 0
    try:
        return max(0, written - int(json.loads(cursor.read_bytes())["records"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return written


def planned(folder: RunFolder) -> int:
    """How many steps the run will make; 0 where its file does not say so."""
    try:
        return int(json.loads(folder.plan.read_bytes())["steps"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0


def time_left(known: History, steps: int) -> float | None:
    """Seconds that so many steps will take, if they take as long as the last ones did."""
    recent = [seconds for _, seconds in known.series.get("seconds/step", [])[-RECENT:]]
    return max(steps, 0) * sum(recent) / len(recent) if recent else None


def is_locked(folder: RunFolder) -> bool:
    """Whether a process is at the run."""
    if not folder.lock.is_file():
        return False
    with folder.lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
