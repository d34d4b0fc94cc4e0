"""Records on disk: written once, whole or not at all, and sent again only if nobody said that they arrived."""

from __future__ import annotations

import binascii
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.spool import MOST, MOST_BYTES, Spool, name

ENDLESS = """
import sys
from pathlib import Path
from orchestrator.spool import Spool
spool = Spool(Path(sys.argv[1]))
for step in range(int(sys.argv[2]), 10**9):
    spool.metrics("step", step, {"loss": step / 3})
    if step % 50 == 0:
        print(step, flush=True)
"""


def everything(folder: Path) -> list[dict[str, Any]]:
    """All records, read with nothing but a JSON parser."""
    return [json.loads(line) for line in (folder / "records.jsonl").read_bytes().splitlines()]


def steps(folder: Path, axis: str = "step") -> list[int]:
    bodies = [record["body"] for record in everything(folder) if record["kind"] == "metrics"]
    return [body["step"] for body in bodies if body["axis"] == axis]


def test_what_was_recorded_is_read_again_in_order(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.metrics("step", 0, {"loss": 0.1, "acc": float("nan")})
        spool.describe("param", "seed", "1")
    with Spool(tmp_path) as spool:
        first, second = spool.next()
        assert spool.waiting == 2
    assert (first.number, first.kind, first.body["step"], first.body["values"]["loss"]) == (1, "metrics", 0, 0.1)
    assert (second.number, second.kind, second.body) == (2, "param", {"key": "seed", "value": "1"})


def test_a_line_is_json_with_the_checksum_of_what_stands_before_it(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append("tag", {"key": "a", "value": 'ä"\n'})
    line = (tmp_path / "records.jsonl").read_bytes()
    assert line.count(b"\n") == 1
    assert int(json.loads(line)["crc"], 16) == binascii.crc32(line[: line.rindex(b',"crc"')])


def test_a_step_of_an_axis_is_recorded_once(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert [spool.metrics("step", step, {"loss": 1}) for step in (0, 1, 2)] == [True] * 3
        assert spool.metrics("epoch", 0, {"clean": 1})
    with Spool(tmp_path) as spool:  # a resume from the checkpoint at step 1
        assert [spool.metrics("step", step, {"loss": 2}) for step in (1, 2, 3)] == [False, False, True]
        assert not spool.metrics("epoch", 0, {"clean": 2})
    assert steps(tmp_path) == [0, 1, 2, 3]
    assert steps(tmp_path, "epoch") == [0]


def test_a_parameter_is_recorded_again_only_if_it_changed(tmp_path: Path) -> None:
    for value in ("1", "1", "2"):
        with Spool(tmp_path) as spool:
            spool.describe("param", "seed", value)
            spool.describe("tag", "seed", value)
    assert [(record["kind"], record["body"]["value"]) for record in everything(tmp_path)] == [
        ("param", "1"),
        ("tag", "1"),
        ("param", "2"),
        ("tag", "2"),
    ]


def test_a_line_cut_at_any_byte_is_cut_off_and_written_again(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.metrics("step", 0, {"loss": 1})
        spool.metrics("step", 1, {"loss": 2})
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        with Spool(tmp_path) as spool:
            assert spool.damaged == 0
            assert not spool.metrics("step", 0, {"loss": 1})
            assert spool.metrics("step", 1, {"loss": 2})
            assert [record.body["step"] for record in spool.next()] == [0, 1]
        assert steps(tmp_path) == [0, 1]


def test_a_damaged_line_is_passed_over_and_counted(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for step in range(3):
            spool.metrics("step", step, {"loss": step})
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step":1', b'"step":7'))
    with Spool(tmp_path) as spool:
        assert spool.damaged == 1
        assert spool.metrics("step", 3, {"loss": 3})
        assert [record.body["step"] for record in spool.next()] == [0, 2, 3]


def test_only_what_did_not_arrive_waits(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.aim("here")
        for step in range(5):
            spool.metrics("step", step, {"loss": step})
        spool.arrived(spool.next()[2])
        assert [record.body["step"] for record in spool.next()] == [3, 4]
    with Spool(tmp_path) as spool:
        spool.aim("here")
        assert spool.waiting == 2
        spool.metrics("step", 5, {"loss": 5})
        assert [record.body["step"] for record in spool.next()] == [3, 4, 5]


@pytest.mark.parametrize("cursor", [None, b"", b"{", b"[]", b'{"target": "here"}'])
def test_without_a_cursor_everything_waits(tmp_path: Path, cursor: bytes | None) -> None:
    with Spool(tmp_path) as spool:
        spool.aim("here")
        spool.metrics("step", 0, {"loss": 0})
        spool.arrived(spool.next()[-1])
        assert spool.next() == []
    (tmp_path / "cursor.json").unlink()
    if cursor is not None:
        (tmp_path / "cursor.json").write_bytes(cursor)
    with Spool(tmp_path) as spool:
        assert spool.waiting == len(spool.next()) == 1


def test_another_destination_is_sent_everything(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.aim("here")
        spool.metrics("step", 0, {"loss": 0})
        spool.arrived(spool.next()[-1])
    with Spool(tmp_path) as spool:
        spool.aim("there")
        assert spool.waiting == len(spool.next()) == 1
        spool.arrived(spool.next()[-1])
        assert spool.waiting == 0


def test_files_travel_alone_and_nothing_overtakes(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for kind in ("metrics", "param", "artifact", "artifact", "tag", "metrics", "status"):
            spool.append(kind, {"axis": "step", "step": 0, "key": kind, "value": ""})  # type: ignore[arg-type]
        trips = []
        while records := spool.next():
            trips.append([record.kind for record in records])
            spool.arrived(records[-1])
    assert trips == [["metrics", "param"], ["artifact"], ["artifact"], ["tag", "metrics"], ["status"]]


def test_a_trip_is_limited_in_records_and_in_bytes(tmp_path: Path) -> None:
    with Spool(tmp_path / "many") as spool:
        for step in range(MOST + 1):
            spool.metrics("step", step, {"loss": step})
        assert len(spool.next()) == MOST
    with Spool(tmp_path / "large") as spool:
        for key in ("a", "b"):
            spool.describe("tag", key, "x" * MOST_BYTES)
        assert [record.body["key"] for record in spool.next()] == ["a"]


def test_two_processes_cannot_write_the_same_run(tmp_path: Path) -> None:
    with Spool(tmp_path), pytest.raises(ValueError, match="another process"):
        Spool(tmp_path)
    Spool(tmp_path).close()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with Spool(tmp_path) as spool:
        spool.metrics("step", 0, {"loss": 0})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, line: write(file, line[:9]))
            with pytest.raises(OSError, match="make room"):
                spool.metrics("step", 1, {"loss": 1})
        assert spool.metrics("step", 1, {"loss": 1})
    assert steps(tmp_path) == [0, 1]


def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    reached = 0
    for kill in range(3):
        command = [sys.executable, "-c", ENDLESS, str(tmp_path), str(max(0, reached - 60))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(3 + 5 * kill)]
            process.send_signal(signal.SIGKILL)
        with Spool(tmp_path):  # cuts off what was torn
            pass
        reached = len(steps(tmp_path))
        assert steps(tmp_path) == list(range(reached))
        assert reached > said[-1]


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("acc=1", "acc_1"),
        ("seconds/attack", "seconds/attack"),
        ("a//b/../c/", "a/b/c"),
        ("linf, 8/255: clean", "linf_ 8/255_ clean"),
        ("=", "_"),
        ("", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_takes(text: str, accepted: str) -> None:
    assert name(text) == accepted
