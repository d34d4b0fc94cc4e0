"""What there is, a line each, read from files without running them: `sparring list` needs neither torch nor Ray."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from algorithms.plugins import unknown

HOME = Path(__file__).resolve().parents[1]
PLUGINS = {
    "attacks": "algorithms/attacks",
    "views": "algorithms/views",
    "signs": "algorithms/diagnostics/signs",
    "defenses": "algorithms/defenses",
    "updates": "algorithms/updates",
    "schedules": "algorithms/schedules",
    "constraints": "algorithms/control/constraints",
    "models": "algorithms/models",
    "datasets": "workers/datasets",
}
TABLES = {
    "suites": "orchestrator/suites",
    "budgets": "orchestrator/budgets",
    "recipes": "recipes",
    "studies": "studies",
}


def kinds() -> list[str]:
    """What can be listed."""
    return [*PLUGINS, *TABLES]


def catalogue(kind: str) -> dict[str, str]:
    """Names with a sentence each. Raises ValueError for a kind that there is not."""
    if kind in PLUGINS:
        return dict(_plugins(HOME / PLUGINS[kind]))
    if kind in TABLES:
        return dict(_tables(HOME / TABLES[kind], by_path=kind not in ("suites", "budgets")))
    raise ValueError(unknown(kind, kinds(), "list"))


def _plugins(folder: Path) -> Iterator[tuple[str, str]]:
    """Each plug-in with the first line of its module's docstring: what it is, and its paper."""
    for file in sorted(folder.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        yield file.stem, docstring.partition("\n")[0]


def _tables(folder: Path, *, by_path: bool) -> Iterator[tuple[str, str]]:
    """Each TOML file with what it says about itself: its key `about`, or the comment that it begins with."""
    for file in sorted(folder.glob("*.toml")):
        text = file.read_text(encoding="utf-8")
        first = text.partition("\n")[0]
        about = first.lstrip("# ") if first.startswith("#") else str(tomllib.loads(text).get("about", ""))
        yield (_typed(file) if by_path else file.stem), about


def _typed(file: Path) -> str:
    """A path as one would type it here."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
