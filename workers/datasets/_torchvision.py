"""Datasets that torchvision downloads: their files are found or fetched, checked, and read by its own classes.

The CIFAR files are pickles. Torchvision compares each with its published MD5 before it reads it, so that nothing but
the published bytes is ever unpickled.
"""

from __future__ import annotations

import http.client
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithms import vision
from workers.datasets import Examples, Part, _files

_DOWNLOAD_FAILS = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)

_AGAIN = "and it is downloaded again"


def idx_files(kind: str, part: Part) -> list[str]:
    """The files of a dataset in MNIST's own format (http://yann.lecun.com/exdb/mnist), images first."""
    name = {"train": "train", "test": "t10k"}[part]
    return [f"{kind}/raw/{name}-images-idx3-ubyte", f"{kind}/raw/{name}-labels-idx1-ubyte"]


def fingerprint(kind: str, folder: str, files: Sequence[str]) -> str:
    """A hash of the files, which are downloaded first if one is missing."""
    paths = [_root(folder) / name for name in files]
    if not all(path.is_file() for path in paths):
        _download(kind, _root(folder), paths)
    return _files.fingerprint(paths, kind)


def read(kind: str, folder: str, part: Part, files: Sequence[str]) -> Examples:
    """A part of the dataset that torchvision calls `kind`, from these files, which are there."""
    source = getattr(vision.torchvision().datasets, kind)
    _check(source, [_root(folder) / name for name in files])
    try:
        dataset = source(_root(folder), train=part == "train")
    except RuntimeError as error:  # a file of the other part, say
        raise ValueError(f"{kind} in {_root(folder)} is incomplete ({error}); delete it, {_AGAIN}") from error
    images = np.asarray(dataset.data)
    channels_first = images[:, np.newaxis] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Examples(channels_first, np.asarray(dataset.targets, dtype=np.int64), tuple(dataset.classes))


def _root(folder: str) -> Path:
    """The download folder, absolute."""
    return Path(folder).expanduser().resolve()


def _download(kind: str, root: Path, paths: Sequence[Path]) -> None:
    """Lets torchvision download the dataset, in one process at a time. Raises ValueError if it cannot."""
    try:
        with _files.locked(root / f".{kind}.lock"):
            if not all(path.is_file() for path in paths):
                getattr(vision.torchvision().datasets, kind)(root, download=True)
    except _DOWNLOAD_FAILS as error:
        lacking = ", ".join(str(path) for path in paths if not path.is_file())
        remedy = (
            "put the files there, name a folder that has them (folder = ...), "
            "take a Parquet copy (name = 'parquet'), or train on the bundled digits (name = 'digits')"
        )
        raise ValueError(f"{lacking}: not there, and the download failed ({_line(error)}); {remedy}") from error


def _line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _check(source: Any, paths: Sequence[Path]) -> None:
    """Raises ValueError for the first file that is not what it should be."""
    published = dict(getattr(source, "train_list", []) + getattr(source, "test_list", []))
    for path in paths:
        wrong = _published(path, published[path.name]) if published else _idx(path)
        if wrong:
            raise ValueError(f"{path}: {wrong}; delete it, {_AGAIN}")


def _published(path: Path, md5: str) -> str:
    """What is wrong with a file that has a published checksum; empty if nothing is."""
    check_integrity = vision.torchvision().datasets.utils.check_integrity
    return "" if check_integrity(path, md5) else "its content is not what was published (another MD5)"


def _idx(path: Path) -> str:
    """What is wrong with a file of bytes in the IDX format; empty if nothing is."""
    axes = 3 if "idx3" in path.name else 1
    with path.open("rb") as file:
        header = np.frombuffer(file.read(4 + 4 * axes), dtype=">u4")
    if len(header) != 1 + axes or header[0] != 0x800 + axes:
        return f"does not begin as an IDX file of bytes with {axes} axes"
    size, expected = path.stat().st_size, 4 + 4 * axes + int(np.prod(header[1:], dtype=object))
    return "" if size == expected else f"{size} bytes long, where its header promises {expected}"
