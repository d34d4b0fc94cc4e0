"""What a run has recorded of itself, read back from its folder while or after it runs. Nothing is locked or sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple, final

from orchestrator.folders import RunFolder
from orchestrator.spool import RECORDS, Record, decode

Series = list[tuple[float, float]]  # updates made, value


@final
class History(NamedTuple):
    """The records of a run."""

    series: dict[str, Series]  # by the metric's name
    tags: dict[str, str]  # versions and the state of the source code


def history(folder: RunFolder) -> History:
    """What was recorded so far; empty where nothing was. A damaged line is passed over.

    An epoch's metrics stand at the update after which they were measured: that of the step recorded before them.
    """
    series: dict[str, Series] = {}
    tags: dict[str, str] = {}
    updates = 0
    for record in _records(folder):
        if record.kind == "tag":
            tags[record.body["key"]] = record.body["value"]
        if record.kind != "metrics" or record.body["axis"] not in ("step", "epoch"):
            continue
        if record.body["axis"] == "step":
            updates = record.body["step"] + 1
        for name, value in record.body["values"].items():
            series.setdefault(name, []).append((float(updates), float(value)))
    return History(series, tags)


def thinned(series: Series, most: int = 400) -> Series:
    """At most `most` points: means over equal stretches of the series, where it has more."""
    if len(series) <= most:
        return series
    edges = [round(i * len(series) / most) for i in range(most + 1)]
    pieces = [series[start:end] for start, end in itertools.pairwise(edges)]
    return [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]


def _records(folder: RunFolder) -> Iterator[Record]:
    """The undamaged records, oldest first."""
    path = folder.records / RECORDS
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            record = decode(line, 0)
            if record is not None:
                yield record
