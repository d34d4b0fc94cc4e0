"""An evaluation that was interrupted goes on where it stopped, and nothing in it differs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.evaluation import measure
from orchestrator.listener import Silent
from orchestrator.loop import Interrupted
from tests.linear import Watch, target, watch


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watch:
    """Interrupts evaluations, and counts what they do."""
    return watch(monkeypatch, tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder, without the place where it lies."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes().replace(str(folder).encode(), b"") for p in paths}


@pytest.mark.parametrize("after", [0, 5, 11])
def test_interrupted_and_resumed_is_uninterrupted(watched: Watch, tmp_path: Path, after: int) -> None:
    measure(target(tmp_path / "whole" / "run"), Silent())
    whole = len(watched.tasks)
    watched.tasks.clear()
    watched.shards = after
    with pytest.raises(KeyboardInterrupt):
        measure(target(tmp_path / "again" / "run"), Silent())
    assert not list((tmp_path / "again").rglob("outcome.json"))
    finished = len(list((tmp_path / "again").rglob("*.parquet")))
    assert finished == after
    watched.tasks.clear()
    watched.shards = math.inf
    measure(target(tmp_path / "again" / "run"), Silent())
    assert len(watched.tasks) == whole - after
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_asked_to_stop_it_keeps_the_shard_and_goes_on_later(watched: Watch, tmp_path: Path) -> None:
    answers = iter([False, False, False, True])
    with pytest.raises(Interrupted, match="same command"):
        measure(target(tmp_path), Silent(), stop=lambda: next(answers))
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
    before = len(watched.tasks)
    measure(target(tmp_path), Silent())
    assert sum(task.label == "FGSM" for task in watched.tasks[before:]) == 2


def damage_nothing(path: Path) -> None:
    """Leaves a part as it is."""


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_other_examples(path: Path) -> None:
    table = pq.read_table(path)
    moved = table.set_column(2, "index", pa.array(table["index"].to_numpy() + 1))
    pq.write_table(moved, path)


@pytest.mark.parametrize(
    ("suffix", "harm", "again"),
    [
        (".parquet", damage_nothing, 0),
        (".parquet", cut_short, 1),
        (".parquet", empty, 1),
        (".parquet", of_other_examples, 1),
        (".parquet", Path.unlink, 1),
        (".npz", cut_short, 1),
        (".npz", empty, 1),
        (".npz", Path.unlink, 1),
    ],
)
def test_a_damaged_part_is_made_again(
    watched: Watch, tmp_path: Path, suffix: str, harm: Callable[[Path], None], again: int
) -> None:
    watched.shards = 8
    with pytest.raises(KeyboardInterrupt):
        measure(target(tmp_path, examples=300), Silent())
    (victim,) = tmp_path.rglob(f"002-00000{suffix}")  # the first shard of PGD-20, whose images are kept
    harm(victim)
    watched.shards = 0
    watched.tasks.clear()
    with pytest.raises(KeyboardInterrupt):
        measure(target(tmp_path), Silent())
    assert sum(t.label == "PGD-20" and t.indices[0] == 0 for t in watched.tasks) == again
