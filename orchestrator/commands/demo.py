"""`sparring demo`: two classifiers of the bundled digits, one of them robust, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from orchestrator.commands.train import nearby, summary
from orchestrator.terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.run import Run

RECIPES = ("digits-standard", "digits-pgd")


def run(context: typer.Context) -> None:
    """Trains a plain and a robust classifier of the bundled digits on a local Ray cluster, and attacks both."""
    from orchestrator.backend import open_cluster  # noqa: PLC0415 - torch and Ray take seconds
    from orchestrator.catalogue import HOME  # noqa: PLC0415
    from orchestrator.config import load_recipe  # noqa: PLC0415
    from orchestrator.run import train  # noqa: PLC0415

    terminal: Terminal = context.obj
    recipes = [load_recipe(HOME / "recipes" / f"{name}.toml") for name in RECIPES]
    with terminal.progress() as listener, open_cluster(recipes[0].workers, listener):
        runs = [train(recipe, listener=listener) for recipe in recipes]
    terminal.show(table(runs))
    for finished in runs:
        terminal.say(f"report  {nearby(finished.folder.report)}")
    for address in dict.fromkeys(finished.tracking_url for finished in runs):
        terminal.say(f"MLflow  {address}")
    terminal.result({"runs": [summary(finished) for finished in runs]})


def table(runs: list[Run]) -> Table:
    """A row a model, a column an attack."""
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    from orchestrator.evaluations.screen import percent  # noqa: PLC0415

    first = runs[0].outcome
    shown = Table(title=f"Accuracy on {first.examples} test images; attacks within {first.eps:g} ({first.norm})")
    for heading in ("model", *(row.attack for row in first.table)):
        shown.add_column(heading, justify="left" if heading == "model" else "right")
    for finished in runs:
        shares = (row.accuracy for row in finished.outcome.table)
        shown.add_row(finished.folder.name, *("" if share is None else percent(share.value) for share in shares))
    return shown
