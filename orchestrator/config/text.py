"""Recipes as text: files that a stranger may have written, overrides from a command line, and TOML to print."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.config.errors import DEPTH, Key, RecipeError, nearest, quoted, shown

LARGEST = 256 * 1024  # bytes of a recipe; the longest of ours has 2,000
PATHS = (
    "folder",
    "file",
    "path",
    "suite",
    "surrogate",
    "uri",
)  # keys whose text is a path, or an address that may hold one

Table = dict[str, Any]


def read(path: str | Path) -> Table:
    """The tables of a TOML file, or of a resolved recipe in JSON. Raises RecipeError with the file's name."""
    try:
        return _parsed(Path(path))
    except UnicodeDecodeError as error:
        problem = f"UTF-8 text expected, and byte {error.start} is not: save the file as UTF-8"
    except RecursionError:
        problem = "tables or lists nested too deeply"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValueError as error:  # of both parsers, and of numbers with thousands of digits
        said = str(error).split(";")[0]
        problem = error.problem if isinstance(error, RecipeError) else f"not {_format(path)}: {said}"
    raise RecipeError((), problem, str(path))


def _parsed(file: Path) -> Table:
    if not file.is_file():
        raise RecipeError((), _missing(file))
    size = file.stat().st_size
    if size > LARGEST:
        raise RecipeError((), f"a recipe of {LARGEST // 1024} KiB at most, not {size // 1024} KiB")
    text = file.read_bytes().decode("utf-8-sig")
    tables = json.loads(text) if _format(file) == "JSON" else tomllib.loads(text)
    if not isinstance(tables, dict):
        raise RecipeError((), f"a table, not {shown(tables)}")
    return tables


def _format(file: str | Path) -> str:
    return "JSON" if str(file).endswith(".json") else "TOML"


def _missing(file: Path) -> str:
    """Why there is no such file to read, with the likeliest one that is there."""
    if file.exists():
        return "a folder or a device, not a file: name a TOML file"
    there = sorted(str(other) for other in file.parent.glob("*.toml"))
    return f"no such file; {nearest(str(file), there)}recipes there: {', '.join(there) or 'none'}"


def parse_override(text: str) -> tuple[Key, Any]:
    """`defense.attack.eps=8/255` as a key and a value: a TOML value, or else a plain text."""
    key, equals, value = text.partition("=")
    path = _path_of(key) if equals and text.isprintable() else None
    if path is None:
        problem = f"write key=value, such as train.epochs=5, not {shown(text)}"
        raise RecipeError((), problem, "command line")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return path, value


def _path_of(key: str) -> Key | None:
    """The parts of a dotted TOML key, or None if it is none. Digits name places in a list."""
    try:
        node: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return None
    path: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        ((part, node),) = node.items()
        path.append(part)
    return tuple(path) if node == 0 else None


def override(tables: Table, path: Key, value: Any) -> None:
    """Sets one value in the tables, which are changed. A plug-in given by its name alone becomes a table."""
    node: Any = tables
    for depth, part in enumerate(path[:-1]):
        inner = node[_place(node, part, path[: depth + 1])] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(inner, str):
            inner = {"name": inner}
            node[_place(node, part, path) if isinstance(node, list) else part] = inner
        if not isinstance(inner, dict | list):
            raise RecipeError(path[: depth + 1], f"{shown(inner)}, which has no keys in it", "command line")
        node = inner
    node[_place(node, path[-1], path) if isinstance(node, list) else path[-1]] = value


def _place(entries: list[Any], part: str | int, path: Key) -> int:
    """The place in a list that a part of a key names."""
    if not str(part).isdigit() or int(part) >= len(entries):
        raise RecipeError(path[:-1], f"a place in a list of {len(entries)}, from 0, not {part!r}", "command line")
    return int(part)


def confine(tables: Table, recipe: Path, trusted: set[Key]) -> None:
    """Raises RecipeError for a path, written in a recipe's file, that leaves the folders of the run and the recipe.

    Who runs a stranger's recipe lends it these folders, not the machine; `trusted` keys come from the command line.
    """
    folders = [Path.cwd().resolve(), recipe.parent.resolve()]
    for key, text in _paths_in(tables, ()):
        given = any(key[: len(other)] == other for other in trusted)
        if not given and not any(_target(str(key[-1]), text).is_relative_to(folder) for folder in folders):
            remedy = f"; if you mean it, give it on the command line: {'.'.join(map(str, key))}={text}"
            problem = f"a path below the current folder or the recipe's, not {shown(text)}"
            raise RecipeError(key, problem + (remedy if text.isprintable() else ""))


def _target(key: str, text: str) -> Path:
    """Where a path leads, symbolic links followed; the current folder for an address of another machine."""
    if key == "uri" and ":" in text:
        scheme, _, rest = text.partition(":")
        if scheme not in ("file", "sqlite"):
            return Path.cwd().resolve()
        text = rest.removeprefix("///" if scheme == "sqlite" else "//")
    return Path("/") if "\0" in text else Path(text).expanduser().resolve()


def _paths_in(node: Any, path: Key) -> list[tuple[Key, str]]:
    """The texts under keys that hold paths, at any depth that a recipe may have."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found: list[tuple[Key, str]] = []
    for key, entry in entries:
        if isinstance(entry, str) and key in PATHS:
            found.append(((*path, key), entry))
        elif len(path) < DEPTH:
            found += _paths_in(entry, (*path, key))
    return found


def write(tables: Table, path: tuple[str, ...] = ()) -> str:
    """The tables as TOML, plain values before sections."""
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in tables.items() if isinstance(value, dict)}
    head = [f"[{'.'.join(quoted(part) for part in path)}]"] if path and (plain or not inner) else []
    lines = head + [f"{quoted(key)} = {_value(value)}" for key, value in plain.items()]
    blocks = ["\n".join(lines) + "\n"] if lines else []
    return "\n".join(blocks + [write(value, (*path, key)) for key, value in inner.items()])


def _value(value: Any) -> str:
    """One value as TOML."""
    if value is None:
        return '"none"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, float) and value == round(value * 255) / 255 and len(repr(value)) > 8:
        return f'"{round(value * 255)}/255"'  # as papers write radii
    if isinstance(value, float) and re.fullmatch(r"-?\d+e[+-]?\d+", repr(value)):
        return repr(value).replace("e", ".0e")  # no need in TOML, but every editor then shows a float
    return json.dumps(value, ensure_ascii=False)
