"""`sparring list`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.terminal import Terminal


def run(
    context: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(help="attacks, views, signs, defenses, updates, models, datasets, suites, recipes, ..."),
    ] = None,
) -> None:
    """Lists attacks, defenses, updates, models, datasets, suites, recipes: a line each, by their names in recipes."""
    from orchestrator.catalogue import catalogue, kinds  # noqa: PLC0415

    terminal: Terminal = context.obj
    found = {each: catalogue(each) for each in ([kind] if kind else kinds())}
    terminal.result(found)
    for each, entries in found.items():
        if kind is None:
            terminal.say(f"{each}:")
        width = max((len(name) for name in entries), default=0)
        for name, about in entries.items():
            terminal.say(f"{'' if kind else '  '}{name:{width}}  {about}")
