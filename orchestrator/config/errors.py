"""What is wrong in a recipe, in one line: the file, the key's path, what was expected, what came, and the remedy."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, final

Key = tuple[str | int, ...]  # from the root: names of keys and places in lists

SHOWN = 60  # characters of a value that a message repeats
DEPTH = 32  # of tables within tables; no recipe needs half of it


@final
class RecipeError(ValueError):
    """A recipe that cannot be used. `where` is the file, `path` the key, `problem` a sentence with the remedy."""

    def __init__(self, path: Key, problem: str, where: str = "recipe", unknown: bool = False) -> None:
        super().__init__(path, problem, where, unknown)
        self.path, self.problem, self.where, self.unknown = path, problem, where, unknown

    def __str__(self) -> str:
        """`recipes/trades.toml: defense.attack.eps: a radius in pixel units, between 0 and 1, not 8`."""
        return ": ".join(part for part in (self.where, dotted(self.path), self.problem) if part)


def dotted(path: Key) -> str:
    """A key as a user writes it: `defense.attack.eps`, `suite[2].eps`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else ("." if text else "") + quoted(part)
    return text


def quoted(key: str) -> str:
    """A key, in quotes where TOML needs them."""
    short = key if len(key) <= SHOWN else key[:SHOWN] + "..."
    return short if re.fullmatch(r"[A-Za-z0-9_-]+", short) else json.dumps(short)


def shown(value: Any) -> str:
    """A value as a message repeats it: never longer than a line."""
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    text = repr(value) if isinstance(value, str | int | float) else f"{type(value).__name__} {value}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'epochs'? ` for the likeliest of the known names, or nothing."""
    near = difflib.get_close_matches(name[:SHOWN].lower(), list(known), n=1, cutoff=0.7)
    return f"did you mean {near[0]!r}? " if near else ""
