"""Recipes between text and values: TOML, JSON or a command line on one side, frozen dataclasses on the other.

`load_recipe` makes a Recipe from a TOML file and overrides, or says in one line of RecipeError what is wrong: the file,
the key, what was expected, what came, and the nearest valid name. `resolve` gives everything in it, defaults too, as
plain data, and `recipe_from` is the inverse; `to_toml` gives the same as TOML; `json_schema` describes it to editors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algorithms import plugins
from orchestrator.config import text
from orchestrator.config.build import build, section
from orchestrator.config.errors import Key, RecipeError, dotted
from orchestrator.config.kinds import fields_of, is_plugin
from orchestrator.config.schema import json_schema
from orchestrator.recipe import NAME, Recipe

__all__ = [
    "RecipeError",
    "build",
    "json_schema",
    "load_recipe",
    "recipe_from",
    "resolve",
    "section",
    "stored_recipe",
    "to_toml",
]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, changed by overrides such as `defense.attack.steps=20`. Raises RecipeError.

    A recipe without a name is called after its file.
    """
    tables = text.read(path)
    changes = [text.parse_override(change) for change in overrides]
    for key, value in changes:
        text.override(tables, key, value)
    if NAME.fullmatch(Path(path).stem):
        tables.setdefault("name", Path(path).stem)
    try:
        text.confine(tables, Path(path), {key for key, _ in changes})
        return section(Recipe, tables)
    except RecipeError as error:
        raise _explained(error, str(path), dict(changes)) from None


def _explained(error: RecipeError, file: str, changed: dict[Key, Any]) -> RecipeError:
    """The error with its place, and with what only the whole recipe can tell."""
    path, problem = error.path, error.problem
    if error.unknown:
        elsewhere = [place for place in _places(resolve(Recipe()), ()) if place[-1] == path[-1]]
        if elsewhere and "did you mean" not in problem:
            problem = problem.replace("; ", f"; did you mean {dotted(elsewhere[0])!r}? ", 1)
        plugin = changed.get((*path[:-1], "name"))
        if plugin is not None:
            problem += f"; {dotted(path[:-1])}={plugin} instead starts the section afresh"
    mine = any(path[: len(key)] == key[: len(path)] for key in changed)
    return RecipeError(path, problem, "command line" if mine else file)


def _places(tables: dict[str, Any], path: Key) -> list[Key]:
    """The paths of all values in some tables."""
    found: list[Key] = []
    for key, value in tables.items():
        found += _places(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]
    return found


def recipe_from(tables: dict[str, Any], where: str = "recipe") -> Recipe:
    """The recipe that `resolve` took apart. Raises RecipeError, naming `where`."""
    try:
        return section(Recipe, tables)
    except RecipeError as error:
        raise RecipeError(error.path, error.problem, where) from None


def stored_recipe(path: Path) -> Recipe:
    """The complete recipe that a run keeps in its folder. Raises RecipeError, naming the file."""
    return recipe_from(text.read(path), str(path))


def resolve(value: Any) -> Any:
    """A recipe, a section or a plug-in as plain data, complete: what JSON can hold, and `build` makes again."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries = {key: resolve(getattr(value, key)) for key in fields_of(type(value))}
        return {"name": plugins.name_of(value), **entries} if is_plugin(value) else entries
    if isinstance(value, dict):
        return {key: resolve(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def to_toml(value: Any) -> str:
    """A recipe or a section as TOML, complete; it reads back as the same value."""
    return text.write(resolve(value))
