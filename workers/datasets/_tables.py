"""Parquet files with a column of encoded images and one of labels, as the Hugging Face hub lays them out.

See https://huggingface.co/docs/hub/datasets-image: images are `struct<bytes, path>`, labels are integers, and the names
of the classes stand in the schema's metadata. The paths are never opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

MOST_CLASSES = 100_000  # a larger label is a damaged one

_ROWS = 1024  # of a batch
_UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, LookupError)  # what pyarrow raises for damaged files


class Batch(NamedTuple):
    """Some rows of a file."""

    start: int  # the first one's row in the file
    images: list[bytes | None]  # encoded; None: missing
    labels: NDArray[np.int64]


class Table(NamedTuple):
    """An open file whose columns are known to be there and to have the right types."""

    path: Path
    file: Any  # pyarrow.parquet.ParquetFile
    image: str
    label: str

    @property
    def rows(self) -> int:
        """How many the file says that it has."""
        count: int = self.file.metadata.num_rows
        return count


def files(folder: Path, part: str) -> list[Path]:
    """A part's files, in order. Raises ValueError if one of several is missing or there twice."""
    paths = sorted(folder.glob(f"{part}-*.parquet"))
    numbered = [match for path in paths if (match := re.match(rf"{part}-(\d+)-of-(\d+)", path.name))]
    numbers = [int(match[1]) for match in numbered]
    for match in numbered:
        if numbers != list(range(int(match[2]))):
            raise ValueError(f"{folder}: the files {part}-*-of-{match[2]} are not all there, or some are there twice")
    return paths


def opened(path: Path, image: str, label: str) -> Table:
    """Opens a file; `image` may be empty. Raises ValueError if it is not Parquet, has no rows or lacks a column."""
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        schema = file.schema_arrow
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from error
    if not file.metadata.num_rows:
        raise ValueError(f"{path}: has no rows")
    images = [field.name for field in schema if _holds_images(field.type)]
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    image = image or next(iter(images), "")
    wanted = ((image, images, "image column (a struct with bytes)"), (label, integers, "label column (integers)"))
    for name, fitting, what in wanted:
        if fitting.count(name) != 1:
            there = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise ValueError(f"{path}: no {what} is called {name!r}; the columns are {there}")
    return Table(path, file, image, label)


def batches(table: Table, classes: int) -> Iterator[Batch]:
    """A file's rows. Raises ValueError if it is damaged or a label is not one of 0 .. `classes` - 1."""
    for start, rows in _read(table, [f"{table.image}.bytes", table.label]):
        images = rows.column(table.image).flatten()[0].to_pylist()
        yield Batch(start, images, _labels(table, rows.column(table.label), start, classes))


def classes(tables: Sequence[Table]) -> tuple[str, ...]:
    """The classes' names in the files' metadata, else a number for each up to the largest label in any file."""
    named = {table.path: names for table in tables if (names := _names(table))}
    if len(set(named.values())) > 1:
        raise ValueError(f"{', '.join(map(str, named))}: these files name different classes")
    if named:
        return next(iter(named.values()))
    largest = 0
    for table in tables:
        for start, rows in _read(table, [table.label]):
            largest = max(largest, int(_labels(table, rows.column(table.label), start, MOST_CLASSES).max()))
    return tuple(str(label) for label in range(largest + 1))


def _read(table: Table, columns: list[str]) -> Iterator[tuple[int, Any]]:
    """A file's record batches, each with the row in the file of its first one."""
    start = 0  # of the batch to come
    try:
        for rows in table.file.iter_batches(batch_size=_ROWS, columns=columns):
            start += rows.num_rows
            if start > table.rows:
                break
            yield start - rows.num_rows, rows
    except _UNREADABLE as error:
        raise ValueError(f"{table.path}: damaged in or after row {start}: {error}") from error
    if start != table.rows:
        raise ValueError(f"{table.path}: damaged: {table.rows} rows are promised, and others came")


def _labels(table: Table, column: Any, start: int, classes: int) -> NDArray[np.int64]:
    """A label column's values, checked. `start` is the first one's row in the file."""
    if column.null_count:
        raise ValueError(f"{table.path}: row {start + column.is_null().index(True).as_py()}: no label")
    labels: NDArray[Any] = np.from_dlpack(column)
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        row = outside[0]
        raise ValueError(f"{table.path}: row {start + row}: a label of 0 .. {classes - 1}, not {labels[row]}")
    return labels.astype(np.int64)


def _names(table: Table) -> tuple[str, ...]:
    """The classes' names in the file's Hugging Face metadata; empty if there are none that can be understood."""
    text = (table.file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(text)["info"]["features"][table.label]["names"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return ()  # the metadata is a courtesy of whoever wrote the file
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _holds_images(kind: Any) -> bool:
    """Whether a column of this type is a struct with bytes."""
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))
