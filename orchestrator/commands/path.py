"""`sparring path`: test error and distance of adversarial images over a setting, such as a defense's weight."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.terminal import Terminal


def run(
    context: typer.Context,
    setting: Annotated[str, typer.Argument(help="Where runs differ: defense.weight, say.")],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, by name or folder, with evaluations.")],
) -> None:
    """Draws what runs came to over the setting in which they differ; runs that agree in it are taken together."""
    from orchestrator.commands.train import nearby  # noqa: PLC0415
    from orchestrator.paths import paths  # noqa: PLC0415 - torch takes a second

    terminal: Terminal = context.obj
    steps, place = paths(runs, setting)
    for step in steps:
        error, norm = (sum(column) / len(column) for column in (step.errors, step.relative))
        terminal.say(f"{setting} = {step.value:g}: error {100 * error:.2f} %, relative norm {norm:.4f}")
    terminal.say(f"picture  {nearby(place)}")
    terminal.result({"picture": str(place), "steps": [step._asdict() for step in steps]})
