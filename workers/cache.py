"""A dataset as one Arrow file a part, which every worker of a machine maps into its memory.

The file's name is a hash of its source's content, so that a changed source has a new file. It is written beside,
flushed and renamed: who finds it finds the whole of it. It holds a SHA-256 of its pixels, labels and classes, which
each process checks once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms import plugins
from algorithms.models import Shape
from algorithms.tensors import Images, Labels
from workers.datasets import Dataset, Examples, Part
from workers.datasets._files import locked

_FORMAT = 1  # of the cache file; a reader of another format looks for another file
_KEY = b"sparring"  # of our entry in the file's metadata
_LOG = logging.getLogger(__name__)

Indices = Tensor | NDArray[np.int64] | Sequence[int]


class _DamagedError(ValueError):
    """A cache file that is not what was once written."""


@final
@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one part of a dataset, by index. `stored` is mapped from the cache file and read-only."""

    stored: Examples
    digest: str  # of pixels, labels and classes: two machines that agree on it train on the same examples

    def __len__(self) -> int:
        return len(self.stored.labels)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of an image."""
        _, channels, height, width = self.stored.images.shape
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """A name each."""
        return self.stored.classes

    def pixels(self, indices: Indices) -> Tensor:
        """(batch, channels, height, width) uint8, a tensor of the caller's own."""
        return torch.from_numpy(self.stored.images[self._rows(indices)])

    def images(self, indices: Indices) -> Images:
        """(batch, channels, height, width) float32 in [0, 1], a tensor of the caller's own."""
        return self.pixels(indices).to(torch.float32).div_(255)

    def labels(self, indices: Indices) -> Labels:
        """(batch,) int64, a tensor of the caller's own."""
        return torch.from_numpy(self.stored.labels[self._rows(indices)])

    def _rows(self, indices: Indices) -> NDArray[np.int64]:
        """The indices as an array. Raises IndexError for one that is not there; -1 is not the last."""
        rows = np.asarray(indices, dtype=np.int64)
        wrong = rows[(rows < 0) | (rows >= len(self))]
        if len(wrong):
            raise IndexError(f"example {wrong[0]}: there are {len(self)}, counted from 0")
        return rows


def open_split(dataset: Dataset, part: Part, folder: str | Path | None = None) -> Split:
    """The part, mapped from its cache file, which is made first where it is missing or damaged.

    The cache lies in `folder`, else in the folder that SPARRING_CACHE names, else in ~/.cache/sparring. Raises
    ValueError if the source is damaged or missing, or if the cache cannot be written.
    """
    if part not in get_args(Part):
        raise ValueError(f"part: one of {', '.join(get_args(Part))}, not {part!r}")
    fingerprint = _fingerprint(dataset, part)
    path = cache_file(dataset, part, fingerprint, cache_folder(folder))
    try:
        split, _ = _attempt(path, fingerprint)
        return _made(dataset, part, path, fingerprint) if split is None else split
    except OSError as error:
        remedy = "free some space there, or name another folder in SPARRING_CACHE"
        raise ValueError(f"{path}: the dataset's cache cannot be used ({error}); {remedy}") from error


def _fingerprint(dataset: Dataset, part: Part) -> str:
    """The source's fingerprint. Raises ValueError if the source cannot be read."""
    try:
        return dataset.fingerprint(part)
    except (ValueError, OSError) as error:
        raise ValueError(f"dataset {plugins.name_of(dataset)}, {part}: {error}") from error


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where cache files lie."""
    chosen = folder or os.environ.get("SPARRING_CACHE") or Path.home() / ".cache" / "sparring"
    return Path(chosen).expanduser().resolve()


def cache_file(dataset: Dataset, part: Part, fingerprint: str, folder: Path) -> Path:
    """The file for a part whose source has this fingerprint."""
    name = plugins.name_of(dataset)
    key = hashlib.sha256(json.dumps([_FORMAT, name, part, fingerprint]).encode()).hexdigest()
    return folder / f"{name}-{part}-{key[:32]}.arrow"


def _made(dataset: Dataset, part: Part, path: Path, fingerprint: str) -> Split:
    """Makes the cache file from the source, unless another process just did."""
    with locked(path.with_name(f".{path.name}.lock")):
        split, damage = _attempt(path, fingerprint)
        if split is None:
            _write(path, _source(dataset, part, path, fingerprint, damage), fingerprint)
            split, damage = _attempt(path, fingerprint)
    if split is None:
        raise ValueError(f"{path}: was just written and is not what was written ({damage}); check the disk")
    return split


def _source(dataset: Dataset, part: Part, path: Path, fingerprint: str, damage: str) -> Examples:
    """The examples from the source, checked. `damage` is what is wrong with the cache file that there was."""
    if damage:
        _LOG.warning("%s is damaged (%s): it is made again from its source", path, damage)
    name = plugins.name_of(dataset)
    try:
        examples = dataset.read(part)
        _check(examples)
        now = dataset.fingerprint(part)
    except (ValueError, OSError) as error:
        lost = f"the cache file {path} is damaged ({damage}) and cannot be made again: " if damage else ""
        raise ValueError(f"dataset {name}, {part}: {lost}{error}") from error
    if now != fingerprint:
        raise ValueError(f"dataset {name}, {part}: the source changed while it was read; start again")
    return examples


def _check(examples: Examples) -> None:
    """Raises ValueError for examples that are not what `Examples` promises."""
    images, labels, classes = examples
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise ValueError(f"images must be uint8 (count, channels, height, width), not {images.dtype} {images.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be int64 ({len(images)},), one an image, not {labels.dtype} {labels.shape}")
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = outside[0]
        raise ValueError(f"row {row}: a label of 0 .. {len(classes) - 1}, not {labels[row]}")


def _write(path: Path, examples: Examples, fingerprint: str) -> None:
    """Writes the cache file beside its place, flushes it to the disk and renames it. The caller holds the lock."""
    for orphan in path.parent.glob(f".{path.name}.*.part"):  # of a process that was killed
        orphan.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    batch = _batch(examples, fingerprint)
    try:
        with beside.open("wb") as file:
            with pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _batch(examples: Examples, fingerprint: str) -> Any:
    """The examples as one Arrow record batch: a tensor column, a label column, and what describes them."""
    images = pa.FixedSizeListArray.from_arrays(_column(examples.images, pa.uint8()), examples.images[0].size)
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), examples.images.shape[1:]), images)
    about = {
        "fingerprint": fingerprint,
        "shape": examples.images.shape[1:],
        "classes": examples.classes,
        "digest": _digest(examples),
    }
    batch = pa.record_batch({"image": tensors, "label": _column(examples.labels, pa.int64())})
    return batch.replace_schema_metadata({_KEY: json.dumps(about)})


def _column(values: NDArray[Any], kind: Any) -> Any:
    """The numbers of an array, in order, as an Arrow array. No copy if they lie in order."""
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(np.ascontiguousarray(values))])


def _digest(examples: Examples) -> str:
    """SHA-256 of the pixels, the labels, their shape and the names of the classes."""
    total = hashlib.sha256(json.dumps([examples.images.shape, examples.classes]).encode())
    total.update(np.ascontiguousarray(examples.images).reshape(-1).data)
    total.update(np.ascontiguousarray(examples.labels).data)
    return total.hexdigest()


def _attempt(path: Path, fingerprint: str) -> tuple[Split | None, str]:
    """The split in the cache file, or None and what is wrong with it."""
    try:
        status = path.stat()
        return _mapped(path, fingerprint, (status.st_ino, status.st_size, status.st_mtime_ns)), ""
    except FileNotFoundError:
        return None, ""
    except _DamagedError as error:
        return None, str(error)


@lru_cache(maxsize=16)
def _mapped(path: Path, fingerprint: str, _: tuple[int, int, int]) -> Split:
    """Maps a cache file and checks it, once in a process unless it changes."""
    try:
        split, written_for = _parsed(path)
        _check(split.stored)
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise _DamagedError(f"not a cache file, or cut short: {error}") from error
    if written_for != fingerprint or _digest(split.stored) != split.digest:
        raise _DamagedError("its content does not have the checksum that was written with it")
    return split


def _parsed(path: Path) -> tuple[Split, str]:
    """The split that lies in a cache file, unchecked, and the fingerprint of its source. Copies no pixels."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        about = json.loads(reader.schema.metadata[_KEY])
        columns = pa.schema({"image": pa.fixed_shape_tensor(pa.uint8(), about["shape"]), "label": pa.int64()})
        if not reader.schema.equals(columns):
            raise ValueError(f"its columns are {reader.schema.names} of types {reader.schema.types}")
        batch = reader.get_batch(0)
    images = batch.column("image").to_numpy_ndarray()
    labels: NDArray[Any] = np.from_dlpack(batch.column("label"))  # to_numpy() would import pandas
    return Split(Examples(images, labels, tuple(about["classes"])), about["digest"]), about["fingerprint"]
