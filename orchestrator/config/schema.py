"""A JSON Schema of the recipe, for editors: read from the same dataclasses, their docstrings and their comments."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
import typing
from pathlib import Path
from typing import Any, Literal

from algorithms import plugins
from orchestrator.config.build import FRACTION
from orchestrator.config.kinds import (
    defaults_of,
    fields_of,
    is_interface,
    is_plugin,
    is_section,
    may_be_none,
    options,
)
from orchestrator.recipe import Recipe

Schema = dict[str, Any]

PLAIN: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{FRACTION.pattern}$"}]},
    str: {"type": "string"},
    Path: {"type": "string"},
}


def json_schema() -> Schema:
    """The recipe's schema, every plug-in with its own fields in it."""
    definitions: dict[str, Schema] = {}
    root = _section(Recipe, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sparring recipe", **root} | {
        "$defs": dict(sorted(definitions.items()))
    }


def _section(kind: type[Any], definitions: dict[str, Schema]) -> Schema:
    """A table with the fields of a dataclass."""
    comments, defaults = comments_of(kind), defaults_of(kind)
    properties = {}
    for name, field in fields_of(kind).items():
        entry = _schema(field, definitions, defaults.get(name))
        properties[name] = {**entry, "description": comments[name]} if name in comments else entry
    required = [name for name in properties if name not in defaults]
    described = {"type": "object", "description": inspect.getdoc(kind) or "", "properties": properties}
    return described | ({"required": required} if required else {}) | {"additionalProperties": False}


def _schema(kind: Any, definitions: dict[str, Schema], default: Any = None) -> Schema:
    """What a field of a type may hold."""
    if may_be_none(kind) or len(options(kind)) > 1:
        members = [_schema(option, definitions, default) for option in options(kind)]
        return {"anyOf": members + [{"enum": ["none", None]}] * may_be_none(kind)}
    if is_interface(kind):
        return _choice(kind, definitions, default)
    if is_section(kind):
        name = f"{plugins.name_of(kind)}.{kind.__name__}"
        if name not in definitions:
            definitions[name] = {}  # so that a section which holds its like ends
            definitions[name] = _section(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    return PLAIN[kind] if kind in PLAIN else _collection(kind, definitions)


def _collection(kind: Any, definitions: dict[str, Schema]) -> Schema:
    """One of some words, a table with free keys, or a list."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    size = {} if origin is list or arguments[-1] is ... else dict.fromkeys(("minItems", "maxItems"), len(arguments))
    return {"type": "array", "items": _schema(arguments[0], definitions), **size}


def _choice(interface: type[Any], definitions: dict[str, Schema], default: Any) -> Schema:
    """A plug-in by its name, by a table with its name, or, where there is a default, by a table of changes to that."""
    word = plugins.kind_of(interface)
    if word not in definitions:
        definitions[word] = {}
        classes = {name: plugins.find(interface, name) for name in plugins.names(interface)}
        bare = [name for name, plugin in classes.items() if set(fields_of(plugin)) <= set(defaults_of(plugin))]
        for name, plugin in classes.items():
            body = _section(plugin, definitions)
            body["properties"] = {"name": {"const": name}, **body["properties"]}
            definitions[f"{word}.{name}"] = body
        tables = [{"$ref": f"#/$defs/{word}.{name}", "required": ["name"]} for name in classes]
        definitions[word] = {"oneOf": [{"enum": bare}, *tables]}
    choice: Schema = {"$ref": f"#/$defs/{word}"}
    if not is_plugin(default):
        return choice
    changed = {"$ref": f"#/$defs/{word}.{plugins.name_of(default)}", "not": {"required": ["name"]}}
    return {"anyOf": [choice, changed]}


def comments_of(kind: type[Any]) -> dict[str, str]:
    """The comment beside each field of a dataclass: what it is, and its unit."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(source).body
    fields = [node for node in ast.walk(definition) if isinstance(node, ast.AnnAssign)]
    named = [(node.target.id, node.end_lineno) for node in fields if isinstance(node.target, ast.Name)]
    return {name: comments[line] for name, line in named if line in comments}
