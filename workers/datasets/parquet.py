"""Any image dataset in Parquet files as the Hugging Face hub lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final, get_args

import numpy as np
from numpy.typing import NDArray

from algorithms.models import Shape
from workers.datasets import Dataset, Examples, Part, _images, _tables
from workers.datasets._files import fingerprint


@final
@dataclass(frozen=True, kw_only=True)
class Parquet(Dataset):
    """The files train-*.parquet and test-*.parquet of a folder, with a column of encoded images and one of labels.

    The image column holds image files (`struct<bytes, path>`; the path is never opened). All images have one size, that
    of the first training image. Classes have the names in the files' Hugging Face metadata, else numbers. Black and
    white counts as grey, every other kind of colour as RGB; transparency is left out; a grey image among coloured ones
    gets three equal channels.
    """

    folder: str = "data"
    image: str = ""  # column; empty: the first one that is a struct with bytes
    label: str = "label"  # column of whole numbers from 0
    channels: int = 0  # 1: all grey (ITU-R 601 luma), 3: all RGB; 0: as the first training image

    def __post_init__(self) -> None:
        """Raises ValueError for a number of channels that no image has."""
        if self.channels not in (0, 1, 3):
            raise ValueError(f"channels: 1 (grey), 3 (RGB) or 0 (as the first image), not {self.channels}")

    def fingerprint(self, part: Part) -> str:
        """A hash of both parts' files: classes and the size of the images are those of both together."""
        paths = [path for files in self._files(part).values() for path in files]
        return fingerprint(paths, part, self.image, self.label, self.channels)

    def read(self, part: Part) -> Examples:
        """Decodes some rows at a time."""
        files = self._files(part)
        tables = {name: [_tables.opened(path, self.image, self.label) for path in files[name]] for name in files}
        classes = _tables.classes(tables["train"] + tables["test"])
        shape = self._shape((tables["train"] or tables[part])[0])
        images, labels = _room(sum(table.rows for table in tables[part]), shape)
        done = 0
        for table in tables[part]:
            for batch in _tables.batches(table, len(classes)):
                rows = slice(done, done + len(batch.labels))
                labels[rows] = batch.labels
                self._decode(table, batch, images[rows])
                done = rows.stop
        return Examples(images, labels, classes)

    def _files(self, part: Part) -> dict[Part, list[Path]]:
        """The files of each part. Raises ValueError if `part` has none."""
        folder = Path(self.folder).expanduser().resolve()
        if not folder.is_dir():
            raise ValueError(f"folder: {folder} is not a folder; it should hold train-*.parquet and test-*.parquet")
        files: dict[Part, list[Path]] = {name: _tables.files(folder, name) for name in get_args(Part)}
        if not files[part]:
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise ValueError(f"folder: {folder} holds no {part}-*.parquet; there is {there}")
        return files

    def _shape(self, table: _tables.Table) -> Shape:
        """The shape of all images: that of the first one in a file."""
        first = next(_tables.batches(table, _tables.MOST_CLASSES)).images[0]
        with _at(table.path, 0):
            channels, height, width = _images.shape_of(_present(first))
        return self.channels or channels, height, width

    def _decode(self, table: _tables.Table, batch: _tables.Batch, pixels: NDArray[np.uint8]) -> None:
        """Puts the images of a batch into `pixels`."""
        channels, height, width = pixels.shape[1:]
        for k, data in enumerate(batch.images):
            with _at(table.path, batch.start + k):
                shape = (channels, height, width)
                pixels[k] = _images.decode(_present(data), shape, colour_to_grey=self.channels == 1)


def _room(count: int, shape: Shape) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Arrays for so many images and labels."""
    try:
        return np.empty((count, *shape), dtype=np.uint8), np.empty(count, dtype=np.int64)
    except MemoryError as error:
        raise ValueError(f"{count:,} images of {shape} do not fit into memory: is a file damaged?") from error


def _present(data: bytes | None) -> bytes:
    """The bytes of an image. Raises ValueError if it has none."""
    if not data:
        raise ValueError("no image: its bytes are missing (a path alone is not enough)")
    return data


@contextmanager
def _at(path: Path, row: int) -> Iterator[None]:
    """Says which row of which file a ValueError is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: row {row}: {error}") from error
