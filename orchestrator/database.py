"""MLflow's SQLite file, made whole or not at all.

MLflow makes its tables one by one. A process killed meanwhile would leave a file that MLflow can neither use nor mend,
so a new file is made under another name, and takes its own when it is complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

PREFIX = "sqlite:///"


def prepare(uri: str, initialise: Callable[[str], object]) -> None:
    """Makes the SQLite file of `uri` if there is none; `initialise` makes the tables of an address's empty file.

    Addresses of other kinds are left alone. Of two processes that make the same file, the first wins.
    """
    if not uri.startswith(PREFIX):
        return
    path = Path(uri.removeprefix(PREFIX))
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        initialise(f"{PREFIX}{beside}")
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(beside)
    finally:
        beside.unlink(missing_ok=True)
