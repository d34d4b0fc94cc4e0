"""From tables to dataclasses: one builder for every section and every plug-in, driven by the types of the fields."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from algorithms import plugins
from orchestrator.config.errors import DEPTH, SHOWN, Key, RecipeError, nearest, shown
from orchestrator.config.kinds import (
    defaults_of,
    expected,
    fields_of,
    is_interface,
    is_plugin,
    is_section,
    may_be_none,
    options,
)

Section = TypeVar("Section")
Builder = Callable[[Any, Any, Key], Any]

LONGEST = 4096  # characters of a text
FRACTION = re.compile(r"\s*(-?\d{1,20}(?:\.\d{1,20})?)\s*/\s*(\d{1,20}(?:\.\d{1,20})?)\s*")


def build(kind: Any, value: Any, path: Key = (), default: Any = None) -> Any:
    """`value`, as TOML or JSON give it, as a value of type `kind`.

    A table without a name, where `default` is a section or a plug-in, changes that default. Raises RecipeError.
    """
    if len(path) > DEPTH:
        raise RecipeError(path[:4], f"tables within tables, {DEPTH} deep at most")
    if may_be_none(kind) and value in (None, "none"):
        return None
    if len(options(kind)) == 1:
        kind = options(kind)[0]
    if is_interface(kind):
        return _plugin(kind, value, path, default)
    if is_section(kind):
        return section(kind, value, path, default)
    make: dict[Any, Builder] = {tuple: _tuple, list: _list, dict: _dict}
    return make.get(typing.get_origin(kind), _leaf)(kind, value, path)


def section(kind: type[Section], value: Any, path: Key = (), base: Section | None = None) -> Section:
    """The dataclass `kind` from a table; what the table leaves out is as in `base`, or has its default."""
    if not isinstance(value, dict):
        raise RecipeError(path, f"{expected(kind)}, not {shown(value)}")
    fields, defaults = fields_of(kind), defaults_of(kind)
    for key in value:
        if key not in fields:
            raise RecipeError((*path, key), _no_such(key, kind), unknown=True)
    if base is not None:
        defaults = {key: getattr(base, key) for key in fields}
    given = {key: build(fields[key], entry, (*path, key), defaults.get(key)) for key, entry in value.items()}
    for key in fields:
        if key not in given and key not in defaults:
            raise RecipeError((*path, key), f"missing; expected: {expected(fields[key])}")
    try:
        return kind(**given) if base is None else dataclasses.replace(typing.cast(Any, base), **given)
    except ValueError as error:
        raise _located(error, path, fields) from error


def _no_such(key: str, kind: type[Any]) -> str:
    """The sentence for a key that a section does not have."""
    fields = list(fields_of(kind))
    inside = f" in {plugins.name_of(kind)}" if is_plugin(kind) else ""
    there = f"keys there: {', '.join(fields)}" if fields else "it has none"
    return f"no such key{inside}; {nearest(key, fields)}{there}"


def _located(error: ValueError, path: Key, fields: dict[str, Any]) -> RecipeError:
    """What a section's own check says, at the field that it names first."""
    field, colon, rest = str(error).partition(": ")
    return RecipeError((*path, field), rest) if colon and field in fields else RecipeError(path, str(error))


def _plugin(interface: type[Any], value: Any, path: Key, default: Any) -> Any:
    """A plug-in by its name alone, by a table with its name, or as a change to the default."""
    if not isinstance(value, str | dict):
        raise RecipeError(path, f"{expected(interface)}, not {shown(value)}")
    table = {"name": value} if isinstance(value, str) else value
    rest = {key: entry for key, entry in table.items() if key != "name"}
    at = path if isinstance(value, str) else (*path, "name")
    if "name" not in table:
        if default is not None:
            return section(type(default), rest, path, default)
        there = ", ".join(plugins.names(interface))
        raise RecipeError(at, f"missing; expected: the name of {expected(interface).split(' (')[0]}: {there}")
    name = _leaf(str, table["name"], at)
    known = plugins.names(interface)
    if name not in known:
        raise RecipeError(at, plugins.unknown(name[:SHOWN], known, plugins.kind_of(interface)))
    return section(plugins.find(interface, name), rest, path)


def _tuple(kind: Any, value: Any, path: Key) -> tuple[Any, ...]:
    arguments = typing.get_args(kind)
    if not isinstance(value, list | tuple):
        raise RecipeError(path, f"{expected(kind)}, not {shown(value)}")
    if arguments[1:] == (...,) or typing.get_origin(kind) is list:
        arguments = arguments[:1] * len(value)
    if len(arguments) != len(value):
        raise RecipeError(path, f"a list of {len(arguments)} entries, not of {len(value)}")
    return tuple(build(kind, entry, (*path, i)) for i, (kind, entry) in enumerate(zip(arguments, value, strict=True)))


def _list(kind: Any, value: Any, path: Key) -> list[Any]:
    return list(_tuple(kind, value, path))


def _dict(kind: Any, value: Any, path: Key) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(path, f"{expected(kind)}, not {shown(value)}")
    _, entries = typing.get_args(kind)
    return {_leaf(str, key, (*path, key)): build(entries, entry, (*path, key)) for key, entry in value.items()}


def _leaf(kind: Any, value: Any, path: Key) -> Any:
    """A number, a text, a truth or one of some words. pydantic judges the type, `_unfit` what no type says."""
    if float in options(kind):
        value = _fraction(value)
    try:
        result = _adapter(str if kind is Path else kind).validate_python(value)
    except ValidationError:
        words = [word for word in typing.get_args(kind) if isinstance(word, str)]
        hint = nearest(value, words) if isinstance(value, str) else ""
        raise RecipeError(path, f"{expected(kind)}, not {shown(value)}{'; ' if hint else ''}{hint}".rstrip()) from None
    problem = _unfit(result)
    if problem:
        raise RecipeError(path, problem)
    return Path(result) if kind is Path else result


def _fraction(value: Any) -> Any:
    """The number that a text such as "8/255" means; anything else as it is."""
    match = FRACTION.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) / float(match[2]) if match and float(match[2]) else value


def _unfit(value: Any) -> str:
    """What is wrong with a value of the right type, or nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number, not {value}"
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"a whole number of 64 bits at most, not {shown(value)}"
    if isinstance(value, str) and len(value) > LONGEST:
        return f"a text of {LONGEST} characters at most, not of {len(value)}"
    if isinstance(value, str) and not value.isprintable():
        return f"a text without control characters, not {shown(value)}"
    return ""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's judge of a type; strict, so that neither "3" nor 3.0 is a whole number."""
    return TypeAdapter(kind, config=ConfigDict(strict=True))
