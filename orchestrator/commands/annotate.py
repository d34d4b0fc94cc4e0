"""`sparring annotate`: people label adversarial images on a local page."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.terminal import Terminal

if TYPE_CHECKING:
    from orchestrator.annotation.sheet import Sheet
    from orchestrator.evaluations.targets import Target
    from orchestrator.listener import Listener


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, by name or folder, or a checkpoint.")],
    suite: Annotated[str | None, typer.Option(help="Whose attack makes the images; as in the recipe.")] = None,
    attack: Annotated[str, typer.Option(help="Its label in the suite; empty: the one whose images are shown.")] = "",
    images: Annotated[
        int, typer.Option(min=1, help="So many test images are attacked; those that fall are shown.")
    ] = 100,
    host: Annotated[str, typer.Option(help="Who can reach the page: this machine, or 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8300,
    results: Annotated[
        bool, typer.Option("--results", help="Show what was answered so far, and serve nothing.")
    ] = False,
) -> None:
    """Serves a page on which people label a run's adversarial images; Ctrl-C ends it and shows what they said."""
    from orchestrator.annotation.results import metrics, screen  # noqa: PLC0415 - torch takes a second
    from orchestrator.annotation.sheet import sheet_of  # noqa: PLC0415
    from orchestrator.evaluations.targets import find  # noqa: PLC0415

    terminal: Terminal = context.obj
    found = find(target)
    sheet = sheet_of(found, suite or found.recipe.evaluation.suite, attack, images)
    if not results:
        terminal.say(f"{len(sheet.index)} images at http://{host}:{port}; Ctrl-C ends it, answers are kept")
        serve(sheet, host, port)
        with terminal.progress() as listener:
            tell(found, sheet, listener)
    terminal.show(screen(sheet))
    terminal.say(f"answers: {sheet.folder / 'answers'}")
    terminal.result(metrics(sheet))


def serve(sheet: Sheet, host: str, port: int) -> None:
    """Serves until Ctrl-C."""
    import uvicorn  # noqa: PLC0415

    from orchestrator.annotation.server import app_for  # noqa: PLC0415

    hosts = ["127.0.0.1", "localhost"] if host in ("127.0.0.1", "localhost") else ["*"]
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app_for(sheet, hosts), host=host, port=port, log_level="warning")


def tell(found: Target, sheet: Sheet, listener: Listener) -> None:
    """Logs figures and answers to the run in MLflow, where it has one."""
    from orchestrator.annotation.results import metrics  # noqa: PLC0415
    from orchestrator.tracking import Tracker  # noqa: PLC0415

    if not found.folder.records.is_dir() or not sheet.annotators():
        return
    tracker = Tracker(found.folder, found.recipe.tracking, listener)
    answered = metrics(sheet)
    place = f"annotations/{sheet.folder.name}"
    tracker.metrics(place, int(answered["annotation/answers"]), answered)
    tracker.artifact(sheet.folder / "answers", place)
    tracker.close(30.0)
