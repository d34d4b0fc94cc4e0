"""What an evaluation has finished, on the disk: one Parquet file a shard, written whole or not at all.

A part that exists is complete and is read instead of computed again. A damaged one, or one of other examples, is not
used. When all is done the parts become one file.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.folders import write_atomically
from workers.judge import Judged, Kept

SCHEMA = pa.schema(
    [
        ("attack", pa.dictionary(pa.int32(), pa.string())),  # "clean" or a label of the suite
        ("eps", pa.float64()),  # the attack's radius in its own norm; infinite for a minimal-norm attack
        ("index", pa.int64()),  # of the example within the test part
        ("label", pa.int64()),
        ("predicted", pa.int64()),  # of the clean image
        ("predicted_adv", pa.int64()),
        ("success", pa.bool_()),  # the adversarial image is predicted wrongly
        ("linf", pa.float64()),  # norms of the perturbation, in pixel units
        ("l2", pa.float64()),
        ("l1", pa.float64()),
        ("l0", pa.float64()),
        ("relative", pa.float64()),  # the norm over that of the clean image, both in the attack's norm
        ("wasserstein", pa.float64()),  # distance by a linear program; infinite where the attack moves no mass
        ("precision", pa.float64()),  # mass that came or went, over all mass
        ("loss", pa.float64()),  # cross-entropy of the clean image
        ("loss_adv", pa.float64()),
        ("confidence", pa.float64()),  # probability of the predicted class
        ("confidence_adv", pa.float64()),
        ("fosc", pa.float64()),  # first-order condition where the search ended, over the attack's ball; NaN without one
        ("fosc_box", pa.float64()),  # over the images in the ball
        ("forwards", pa.int64()),  # passes that the attack spent on the example
        ("backwards", pa.int64()),  # gradient evaluations
        ("certified", pa.float64()),  # in rows of "clean": the certified l2 radius; NaN where none was asked for
        (
            "margin",
            pa.float64(),
        ),  # in rows of "clean": l2 distance to the nearest linearised boundary, or minus it
    ]
)
UNREADABLE = (OSError, EOFError, ValueError, KeyError, BadZipFile, pa.ArrowException)  # not there, or cut short
KEPT = ("index", "clean", "adversarial", "fosc", "loss")


class Part(NamedTuple):
    """A shard of a stage, finished."""

    rows: Any  # a pyarrow table with SCHEMA
    kept: Kept


@final
@dataclass(frozen=True)
class Parts:
    """A folder of finished shards."""

    folder: Path

    def read(self, stage: int, shard: int, indices: NDArray[np.int64], keep: int) -> Part | None:
        """The part, if it is there, whole, and of these examples."""
        path = self._path(stage, shard)
        try:
            rows = pq.ParquetFile(io.BytesIO(path.read_bytes())).read()
            kept = read_images(path.with_suffix(".npz")) if keep else none_kept()
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            BadZipFile,
            pa.ArrowException,
        ):  # not there, or cut short: it is computed again
            return None
        fits = rows.schema.equals(SCHEMA) and np.array_equal(rows["index"].to_numpy(), indices)
        return Part(rows, kept) if fits else None

    def write(self, stage: int, shard: int, part: Part) -> None:
        """Keeps a part. Its images are written first: where there are rows, there are images."""
        path = self._path(stage, shard)
        if len(part.kept.index):
            write_images(path.with_suffix(".npz"), part.kept)
        write_rows(path, part.rows)

    def remove(self) -> None:
        """Deletes all parts: they are in one file now."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, stage: int, shard: int) -> Path:
        return self.folder / f"{stage:03d}-{shard:05d}.parquet"


def rows_of(judged: Judged, attack: str, eps: float) -> Any:
    """A judged shard as a table."""
    count = len(judged.index)
    labels = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [attack])
    columns = [labels, np.full(count, eps), *(getattr(judged, name) for name in SCHEMA.names[2:])]
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def together(tables: list[Any]) -> Any:
    """Tables as one, with one dictionary of attacks."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def write_rows(path: Path, rows: Any) -> None:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def write_images(path: Path, kept: Kept) -> None:
    """Images as an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(kept, name) for name in KEPT})
    write_atomically(path, buffer.getvalue())


def none_kept() -> Kept:
    """No images."""
    nothing = np.empty((0, 0, 0, 0), np.float32)
    return Kept(index=np.empty(0, np.int64), clean=nothing, adversarial=nothing)


def read_images(path: Path) -> Kept:
    """Images from an .npz file; nothing in it can run code."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
        return Kept(**{name: stored[name] for name in KEPT if name in stored})
