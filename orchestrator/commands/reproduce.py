"""`sparring reproduce`: a published table made again, the paper's numbers beside ours."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.terminal import Terminal


def run(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="A TOML file; `sparring list studies` shows ours.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to every recipe: dataset.name=mnist")
    ] = None,
    budget: Annotated[str, typer.Option(help="smoke (a minute), reduced (a night on two cores) or full.")] = "reduced",
    row: Annotated[
        list[str] | None,
        typer.Option(help="Only the row of this title, or rows that begin so; may be repeated."),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Models at a time, each in a process of its own.")] = 1,
) -> None:
    """Trains and measures every model of a published table. What is finished stays: the same command goes on."""
    from orchestrator import tables  # noqa: PLC0415 - torch takes a second
    from orchestrator.commands.train import nearby  # noqa: PLC0415
    from orchestrator.reproduction import reproduce  # noqa: PLC0415

    terminal: Terminal = context.obj
    with terminal.progress() as listener:
        rows = tuple(row or ())
        made = reproduce(study, budget, tuple(overrides or ()), rows=rows, parallel=parallel, listener=listener)
    terminal.show(tables.screen(made))
    terminal.say(f"page    {nearby(made.folder / 'study.html')}")
    terminal.say(f"MLflow  {made.tracking_url}")
    terminal.result(tables.plain(made))
