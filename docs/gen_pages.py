"""Writes the pages that follow from the code: one for each plug-in, one for each kind, and the recipe's reference.

MkDocs runs this file at each build. A plug-in's page is made from its docstrings and its fields; a field's description
is the comment on its line. So a new plug-in documents itself, and no page can fall behind the code.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import io
import re
import textwrap
import tokenize
import typing
from pathlib import Path
from typing import Any, NamedTuple

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.control.constraints import Constraint
from algorithms.defenses import Defense
from algorithms.models import Model
from algorithms.schedules import Schedule
from algorithms.updates import Update
from algorithms.views import View
from orchestrator.catalogue import catalogue
from orchestrator.config.kinds import is_interface, is_section
from orchestrator.recipe import Recipe
from workers.datasets import Dataset


class Kind(NamedTuple):
    """A folder of plug-ins and what the documentation says of it."""

    interface: type[Any]
    section: str  # of a recipe in which a plug-in of this kind is named
    use: str  # what a Python user writes after `from ... import {name}`; `{value}` is the plug-in's value


KINDS = {
    "attacks": Kind(Attack, "defense.attack", "x_adv = {value}(model, x, y, rng=torch.Generator().manual_seed(0))"),
    "views": Kind(View, "defense.attack.view", "x_adv = Through(view={value})(model, x, y, rng=rng)"),
    "defenses": Kind(Defense, "defense", "recipe = Recipe(defense={value})"),
    "updates": Kind(Update, "update", "recipe = Recipe(update={value})"),
    "schedules": Kind(Schedule, "update.schedule", "recipe = Recipe(update=SGD(schedule={value}))"),
    "constraints": Kind(
        Constraint, "update.constraint", "recipe = Recipe(update=HamiltonianMaximization(constraint={value}))"
    ),
    "models": Kind(Model, "model", "network = {value}.build((1, 28, 28), 10)"),
    "datasets": Kind(Dataset, "dataset", "recipe = Recipe(dataset={value})"),
}


class Field(NamedTuple):
    """A field of a plug-in or of a recipe's section, as the documentation shows it."""

    name: str
    kind: str  # Markdown
    default: str  # as it is written in the code; empty for a field that must be given
    about: str


def fields_of(section: type[Any], here: str = "") -> list[Field]:
    """The fields of a dataclass in their order. `here` is the way from the page back to the documentation's root."""
    hints, lines = typing.get_type_hints(section), written(section)
    return [
        Field(field.name, kind_of(hints[field.name], here), *lines[field.name])
        for field in dataclasses.fields(section)
        if field.init
    ]


def written(section: type[Any]) -> dict[str, tuple[str, str]]:
    """For each field its default and the comment on its line, as they stand in the source."""
    source = textwrap.dedent(inspect.getsource(section))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}
    (owner,) = ast.parse(source).body
    assert isinstance(owner, ast.ClassDef)
    for node in owner.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            default = ast.unparse(node.value) if node.value else ""
            found[node.target.id] = default_of(default), comments.get(node.end_lineno or 0, "")
    return found


def default_of(text: str) -> str:
    """A default as a reader wants it: `field(default_factory=PGD)` is `PGD()`."""
    factory = re.fullmatch(r"field\(default_factory=(?:lambda: )?(.+)\)", text)
    if not factory:
        return text
    return factory[1] if factory[1].endswith(")") else f"{factory[1]}()"


def kind_of(hint: Any, here: str) -> str:
    """A type in Markdown: choices by their values, plug-ins by a link to their kind."""
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    for folder, kind in KINDS.items():
        if hint is kind.interface:
            return f"[{plugins.kind_of(hint)}]({here}{folder}/index.md)"
    return f"`{hint.__name__ if inspect.isclass(hint) else str(hint).replace('typing.', '')}`"


def table(fields: list[Field]) -> str:
    """The fields as a Markdown table."""
    if not fields:
        return "It has no fields.\n"
    rows = []
    for field in fields:
        default = f"`{escaped(field.default)}`" if field.default else "must be given"
        rows.append(f"| `{field.name}` | {escaped(field.kind)} | {default} | {escaped(field.about)} |")
    return "\n".join(["| field | type | default | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def escaped(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return text.replace("|", "&#124;")


def plugin_page(folder: str, name: str) -> str:
    """The page of one plug-in."""
    kind = KINDS[folder]
    plugin = plugins.find(kind.interface, name)
    module = importlib.import_module(plugin.__module__)
    fields = fields_of(plugin, "../")
    given = ", ".join(f"{field.name}=..." for field in fields if not field.default)
    value = f"{plugin.__name__}({given})"
    return f"""# {name}

{inspect.getdoc(module)}

`{plugin.__module__}.{plugin.__name__}`: {inspect.getdoc(plugin)}

{table(fields)}
```toml title="In a recipe"
[{kind.section}]
name = "{name}"
```

```python title="In Python"
from {plugin.__module__} import {plugin.__name__}

{kind.use.format(value=value)}
```
"""


def kind_page(folder: str) -> str:
    """The index of one kind: the question, what there is, and what a new one must have."""
    interface = KINDS[folder].interface
    rows = [f"| [{name}]({name}.md) | {escaped(about)} |" for name, about in catalogue(folder).items()]
    listing = "\n".join([f"| {plugins.kind_of(interface)} | |", "| --- | --- |", *rows])
    return f"""# {folder.capitalize()}

{inspect.getdoc(importlib.import_module(interface.__module__))}

{listing}

A file beside these, with one class that implements the interface below, is the next row of this table.

::: {interface.__module__}.{interface.__name__}
"""


def recipes_page() -> str:
    """The reference of a recipe's sections, and the recipes that come with Sparring."""
    hints = typing.get_type_hints(Recipe)
    simple, sections = [], []
    for field in fields_of(Recipe):
        hint = hints[field.name]
        if is_section(hint) or is_interface(hint):
            sections.append(f"### `[{field.name}]`\n\n{section_text(field, hint)}")
        else:
            simple.append(field)
    introduction = (Path(__file__).parent / "_recipes.md").read_text(encoding="utf-8")
    return "\n".join([introduction, shipped(), f"## Sections\n\n### At the top\n\n{table(simple)}", *sections])


def section_text(field: Field, hint: type[Any]) -> str:
    """What is said of one section of a recipe."""
    if is_interface(hint):
        return f"The {field.kind}, by `name`, and its fields. Default: `{field.default}`.\n"
    return f"{inspect.getdoc(hint)}\n\n{table(fields_of(hint))}"


def shipped() -> str:
    """A table of the recipes that come with Sparring, each with what it says about itself."""
    rows = [f"| `recipes/{Path(path).name}` | {escaped(about)} |" for path, about in catalogue("recipes").items()]
    return "\n".join(["## Recipes that come with it\n", "| recipe | |", "| --- | --- |", *rows]) + "\n" if rows else ""


def pages() -> dict[str, str]:
    """All pages that are made here, by their path."""
    made = {"recipes.md": recipes_page()}
    for folder, kind in KINDS.items():
        made[f"{folder}/index.md"] = kind_page(folder)
        made |= {f"{folder}/{name}.md": plugin_page(folder, name) for name in plugins.names(kind.interface)}
    return made


def navigation(entries: list[Any]) -> list[Any]:
    """The navigation of mkdocs.yml with the plug-ins below the index of their kind."""
    return [with_plugins(entry) for entry in entries]


def with_plugins(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the navigation, with the plug-ins if it is the index of a kind."""
    ((title, path),) = entry.items()
    folder = path.removesuffix("/index.md") if isinstance(path, str) else ""
    if folder not in KINDS:
        return entry
    return {title: [path, *({name: f"{folder}/{name}.md"} for name in plugins.names(KINDS[folder].interface))]}


def main() -> None:
    """Writes the pages into the build that runs this file."""
    from mkdocs_gen_files import editor as build  # noqa: PLC0415 - tests look at the pages without it

    editor = build.FilesEditor.current()
    editor.config.nav = navigation(editor.config.nav or [])
    for path, text in pages().items():
        with editor.open(path, "w") as file:
            file.write(text)


if __name__ == "<run_path>":  # how MkDocs runs it
    main()
