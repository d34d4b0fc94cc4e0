"""A run's folder: where its recipe, checkpoints, records and evaluations lie."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room on the disk, for the user, or for a file so large


@final
@dataclass(frozen=True)
class RunFolder:
    """`<tracking folder>/<run name>/`. The name is unique in its folder and is the run's name in MLflow too."""

    path: Path

    @classmethod
    def find(cls, run: str | Path, folder: str | Path = "runs") -> Self:
        """The folder of a run given by path or by name. Raises ValueError, naming those there are, if there is none."""
        for path in (Path(run), Path(folder) / run):
            if (path / "recipe.json").is_file():
                return cls(path.resolve())
        known = sorted(p.parent.name for p in Path(folder).glob("*/recipe.json"))
        there = ", ".join(known[-8:]) if known else "none yet"
        raise ValueError(f"no run {str(run)!r} here or in {folder}; runs there: {there}")

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """The resolved recipe, JSON."""
        return self.path / "recipe.json"

    @property
    def plan(self) -> Path:
        """How many steps the run has, JSON."""
        return self.path / "plan.json"

    @property
    def lock(self) -> Path:
        """Held by the process that is at the run."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The finished model's weights, safetensors; missing until the training is over."""
        return self.path / "model.safetensors"

    @property
    def summary(self) -> Path:
        """What came out, JSON; missing until the run is over."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page that shows the run, HTML."""
        return self.path / "report.html"

    @property
    def records(self) -> Path:
        """Folder of the records on their way to MLflow."""
        return self.path / "records"

    @property
    def convergence(self) -> Path:
        """Folder of what was measured of the training's attacks, a file an epoch."""
        return self.path / "convergence"

    @property
    def theorem(self) -> Path:
        """The convergence theorem's terms with estimated constants, JSON; missing where no attack was measured."""
        return self.convergence / "theorem.json"

    @property
    def spectra(self) -> Path:
        """Singular values and eigenvalues of the model's weights, JSON, where a recipe asks for them."""
        return self.path / "stability" / "spectra.json"

    @property
    def evaluations(self) -> Path:
        """Folder of evaluations, one folder a suite."""
        return self.path / "evaluations"

    @property
    def diagnoses(self) -> Path:
        """Folder of diagnoses, one folder a budget."""
        return self.path / "diagnoses"


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Names the file and the remedy in what a full disk raises."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(f"{path}: {error.strerror}; make room, and the same command goes on from there") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path`, flushes to the disk and renames: a reader sees the whole of it or nothing.

    Raises OSError, naming the file, if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with room_for(path), beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Makes the folder and holds it: one process a run. Raises ValueError if another one is at it."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder.path}: another process is at this run; wait for it, or stop it") from error
        yield
