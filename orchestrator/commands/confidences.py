"""`sparring confidences`: what a model takes for other classes, at the boundary and when it is sure."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.terminal import Terminal


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, by name or folder, or a checkpoint.")],
    levels: Annotated[list[float] | None, typer.Argument(metavar="[LEVEL]...", help="Such as 0.5 0.9 0.99.")] = None,
    count: Annotated[int, typer.Option(help="Images a line.", min=1, max=32)] = 8,
    classes: Annotated[bool, typer.Option("--classes", help="Each class as each other, at the last level.")] = False,
) -> None:
    """Draws test images and what an attack makes of them at each confidence in another class."""
    from orchestrator.commands.train import nearby  # noqa: PLC0415
    from orchestrator.confidences import confidences  # noqa: PLC0415 - torch takes a second

    terminal: Terminal = context.obj
    place = confidences(target, levels or (0.5, 0.9, 0.99), count, classes=classes)
    terminal.say(f"picture  {nearby(place)}")
    terminal.result({"picture": str(place)})
