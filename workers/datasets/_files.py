"""What datasets and their cache do with files: take a fingerprint of them, and let one process at a time make them."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def fingerprint(files: Iterable[Path], *settings: object) -> str:
    """SHA-256 of the files' names and contents and of the settings that decide how they are read."""
    total = hashlib.sha256(repr(settings).encode())
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        total.update(path.name.encode() + b"\0" + content.digest())
    return total.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, waiting for it. The lock ends with its process, however that dies.

    Raises OSError where the file cannot be created or its file system knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
