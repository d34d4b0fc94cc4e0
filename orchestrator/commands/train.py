"""`sparring train`: from a recipe to a trained, recorded model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.terminal import Terminal

if TYPE_CHECKING:
    from orchestrator.run import Run


def run(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(help="A TOML file; `sparring list recipes` shows ours.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to it: train.epochs=5")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with this run, by name or folder, instead of a recipe.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the complete recipe and do nothing.")] = False,
) -> None:
    """Trains a recipe's model. The same command again goes on with a run that was interrupted."""
    terminal: Terminal = context.obj
    if (recipe is None) == (resume is None):
        raise ValueError("give a recipe, such as recipes/digits-pgd.toml, or --resume RUN; one of them")
    if dry_run:
        print_recipe(terminal, recipe, overrides or [], resume)
        return
    from orchestrator.config import load_recipe  # noqa: PLC0415 - torch takes a second
    from orchestrator.run import train  # noqa: PLC0415

    loaded = None if recipe is None else load_recipe(recipe, overrides or [])
    with terminal.progress() as listener:
        finished = train(loaded, resume=resume, listener=listener)
    tell(terminal, finished)


def print_recipe(terminal: Terminal, recipe: str | None, overrides: list[str], resume: str | None) -> None:
    """The recipe with every default in it, and without passwords."""
    from orchestrator.addresses import shareable  # noqa: PLC0415
    from orchestrator.config import load_recipe, resolve, to_toml  # noqa: PLC0415
    from orchestrator.folders import RunFolder  # noqa: PLC0415

    loaded = shareable(load_recipe(recipe or RunFolder.find(resume or "").recipe, overrides))
    terminal.say(to_toml(loaded).rstrip())
    terminal.result(resolve(loaded))


def tell(terminal: Terminal, finished: Run) -> None:
    """What came of a run, and where to look at it."""
    from orchestrator.evaluations.screen import screen  # noqa: PLC0415

    terminal.show(screen(finished.outcome))
    terminal.say(f"run     {nearby(finished.folder.path)}")
    terminal.say(f"report  {nearby(finished.folder.report)}")
    terminal.say(f"MLflow  {finished.tracking_url}")
    terminal.result(summary(finished))


def summary(finished: Run) -> dict[str, Any]:
    """The same for a program."""
    from orchestrator.evaluations.outcome import ADAPTER  # noqa: PLC0415

    return {
        "run": finished.folder.name,
        "folder": str(finished.folder.path),
        "report": str(finished.folder.report),
        "tracking_url": finished.tracking_url,
        "resumed": finished.resumed,
        "metrics": {name: value for name, value in finished.metrics.items() if math.isfinite(value)},
        "evaluation": json.loads(ADAPTER.dump_json(finished.outcome)),
    }


def nearby(path: Path) -> Path:
    """A path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
