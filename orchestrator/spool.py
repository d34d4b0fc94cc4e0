"""Records on their way to the tracking server: a file that only grows, and a cursor that says how far they arrived.

1. A record is one line of JSON with a number and a checksum: whole, or not there. What a kill cut short is cut off.
2. A step of an axis is recorded once: replaying it after a resume has no effect.
3. What is sent was flushed to the disk before, so the cursor never runs ahead of the file, whatever dies.
4. A record keeps its time, so sending it again makes no second row. Deleting `cursor.json` sends everything again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, final

from orchestrator.folders import room_for, write_json

Kind = Literal["metrics", "param", "tag", "artifact", "model", "status"]
TOGETHER = frozenset({"metrics", "param", "tag"})  # kinds that travel in one request
MOST = 250  # records read at once
MOST_BYTES = 256 * 1024  # of them; the server takes a million bytes a request
RECORDS, CURSOR = "records.jsonl", "cursor.json"  # files in a run's folder of records
NAME_LENGTH = 250  # characters that the server takes


class Record(NamedTuple):
    """One thing to tell the tracking server."""

    number: int  # from 1, without gaps
    kind: Kind
    body: dict[str, Any]
    end: int  # byte of the file after it


@final
class Spool:
    """The records of one run. Written by the training, read by one sender; both may run at the same time."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates the records in `folder`. Raises ValueError if another process has them open."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / RECORDS
        self._cursor_path = folder / CURSOR
        self._refused_path = folder / "refused.jsonl"
        self._lock = threading.Lock()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a killed process lets go by itself
        except BlockingIOError:
            os.close(self._file)
            raise ValueError(f"{folder}: another process is working on this run; wait for it or stop it") from None
        self.damaged = 0  # lines that cannot be read and are passed over
        self._number = 0
        self._end = 0
        self._last: dict[str, int] = {}
        self._said: dict[tuple[str, str], str] = {}
        self._restore()
        self._synced = self._end
        self._target, self._arrived, self._offset = self._cursor()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Flushes to the disk and lets other processes open it. Closing twice does nothing."""
        with self._lock:
            if self._file < 0:
                return
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def metrics(self, axis: str, step: int, values: Mapping[str, float]) -> bool:
        """Records a step's metrics, unless this or a later step of the axis is there already; says whether it did."""
        if step <= self._last.get(axis, -1):
            return False
        named = {name(key): float(value) for key, value in values.items()}
        self.append("metrics", {"axis": axis, "step": step, "time": milliseconds(), "values": named})
        return True

    def describe(self, kind: Literal["param", "tag"], key: str, value: str) -> None:
        """Records a parameter or a tag, unless it has that value already."""
        if self._said.get((kind, key)) != value:
            self.append(kind, {"key": key, "value": value})

    def append(self, kind: Kind, body: dict[str, Any]) -> None:
        """Adds a record: it outlives the process at once, the machine after `sync`. Raises OSError on a full disk."""
        with self._lock:
            line = encode(self._number + 1, kind, body)
            with room_for(self._path):
                written = os.write(self._file, line)
            if written < len(line):  # the disk is full: leave no half line before the next one
                os.ftruncate(self._file, self._end)
                raise OSError(f"{self._path}: the disk took {written} of {len(line)} bytes; make room and resume")
            self._end += len(line)
            self._learn(Record(self._number + 1, kind, body, self._end))

    def sync(self) -> None:
        """Flushes what is recorded so far to the disk."""
        with self._lock:
            end, file = self._end, self._file
            if file < 0 or self._synced == end:
                return
        os.fsync(file)
        self._synced = max(self._synced, end)

    @property
    def waiting(self) -> int:
        """Records that have not arrived."""
        return self._number - self._arrived

    def next(self) -> list[Record]:
        """The oldest records that have not arrived and can travel together, flushed to the disk; empty if none wait."""
        self.sync()
        records: list[Record] = []
        for line, after in self._lines(self._offset, self._synced):
            record = decode(line, after)
            if record is None:
                continue
            full = len(records) == MOST or after - self._offset > MOST_BYTES
            if records and (full or not {records[0].kind, record.kind} <= TOGETHER):
                break
            records.append(record)
        return records

    def aim(self, target: str) -> None:
        """From now on records go to `target`: if they went to another one before, all of them from the first on."""
        if target != self._target:
            self._target, self._arrived, self._offset = target, 0, 0

    def arrived(self, record: Record) -> None:
        """This record and all before it need not be sent again."""
        self._arrived, self._offset = record.number, record.end
        write_json(self._cursor_path, {"target": self._target, "records": record.number, "bytes": record.end})

    def refused(self, record: Record, reason: str) -> None:
        """Notes that the server will not have this record."""
        with self._refused_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"number": record.number, "kind": record.kind, "reason": reason}) + "\n")

    def _learn(self, record: Record) -> None:
        """Remembers what decides whether later records are new."""
        self._number = max(self._number, record.number)
        if record.kind == "metrics":
            self._last[record.body["axis"]] = record.body["step"]
        elif record.kind in TOGETHER:
            self._said[record.kind, record.body["key"]] = record.body["value"]

    def _restore(self) -> None:
        """Reads what an earlier process recorded, and cuts off a last line that it could not finish."""
        for line, after in self._lines(0, os.fstat(self._file).st_size):
            if not line.endswith(b"\n"):
                break
            self._end = after
            record = decode(line, after)
            if record is None:
                self.damaged += 1  # it stays: nothing but a torn end is ever removed
            else:
                self._learn(record)
        os.ftruncate(self._file, self._end)

    def _cursor(self) -> tuple[str, int, int]:
        """Where records went, and how many of them, in how many bytes, have arrived there."""
        try:
            cursor = json.loads(self._cursor_path.read_bytes())
            return (
                str(cursor["target"]),
                min(int(cursor["records"]), self._number),
                min(int(cursor["bytes"]), self._end),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return "", 0, 0  # sending again does no harm

    def _lines(self, start: int, end: int) -> Iterator[tuple[bytes, int]]:
        """Lines that begin before `end`, with the byte after each."""
        with self._path.open("rb") as file:
            file.seek(start)
            while start < end:
                line = file.readline()
                start += len(line)
                yield line, start


def encode(number: int, kind: Kind, body: dict[str, Any]) -> bytes:
    """A record as a line."""
    text = json.dumps({"number": number, "kind": kind, "body": body}, separators=(",", ":"))[:-1].encode()
    return b'%s,"crc":"%08x"}\n' % (text, zlib.crc32(text))


def decode(line: bytes, end: int) -> Record | None:
    """The record in a line, or None if the line is damaged."""
    match = re.fullmatch(rb'(.*),"crc":"([0-9a-f]{8})"\}\n', line)
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        return None
    value = json.loads(match[1] + b"}")
    return Record(value["number"], value["kind"], value["body"], end)


def name(text: str) -> str:
    """`text` as a name that MLflow takes: `=` and the like become underscores, and it is cut to the length allowed."""
    parts = re.sub(r"[^\w.\- /]", "_", text).split("/")
    return "/".join(part for part in parts if part not in {"", ".", ".."})[:NAME_LENGTH].rstrip("/") or "_"


def milliseconds() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
