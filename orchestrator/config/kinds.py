"""What a field of a section may hold, read from the dataclass itself: no second description of a recipe exists."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

from algorithms import plugins


def fields_of(section: type[Any]) -> dict[str, Any]:
    """The fields that a recipe may set, each with its type."""
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section) if field.init}


def defaults_of(section: type[Any]) -> dict[str, Any]:
    """The defaults of the fields that have one."""
    defaults = {}
    for field in dataclasses.fields(section):
        if field.default is not dataclasses.MISSING:
            defaults[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = field.default_factory()
    return defaults


def is_interface(kind: Any) -> bool:
    """True for an abstract class that stands in a folder of plug-ins: a value is picked by name."""
    return inspect.isclass(kind) and inspect.isabstract(kind) and hasattr(sys.modules[kind.__module__], "__path__")


def is_section(kind: Any) -> bool:
    """True for a dataclass: a value is a table."""
    return inspect.isclass(kind) and dataclasses.is_dataclass(kind)


def is_plugin(value: object) -> bool:
    """True for a value, or its class, that a recipe names by a file."""
    kind = value if inspect.isclass(value) else type(value)
    return any(is_interface(base) for base in kind.__mro__[1:])


def options(kind: Any) -> tuple[Any, ...]:
    """The members of a union, None left out; a type that is no union is its only member."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return tuple(option for option in typing.get_args(kind) if option is not types.NoneType)
    return (kind,)


def may_be_none(kind: Any) -> bool:
    """True for `X | None`."""
    return types.NoneType in typing.get_args(kind) and typing.get_origin(kind) in (Union, types.UnionType)


WORDS = {int: "a whole number", float: 'a number, or a fraction such as "8/255"', bool: "true or false"}


def expected(kind: Any) -> str:
    """What a user may write for a type, in words."""
    if len(options(kind)) > 1 or may_be_none(kind):
        return " or ".join([expected(option) for option in options(kind)] + ['"none"'] * may_be_none(kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return listed([repr(value) for value in arguments])
    if is_interface(kind):
        word = plugins.kind_of(kind)
        return f"{'an' if word[0] in 'aeiou' else 'a'} {word} (a name, or a table with a name)"
    if is_section(kind) or origin is dict:
        return "a table"
    if origin in (list, tuple):
        return f"a list, each entry {expected(arguments[0])}"
    return WORDS.get(kind, "a path" if kind is Path else "a text in quotes")


def listed(words: list[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
