"""`sparring status`: what a run is doing now, from a second terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.status import Status

SHOWN = ("train/loss", "train/clean_accuracy", "train/adversarial_accuracy", "validation/robust_accuracy")

FEW = 50  # records that are on their way to MLflow all the time
FAULTS = ("requeues", "restarts", "replacements", "hangs", "shards_lost")  # of attackers; shown where there were any


def run(
    context: typer.Context,
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="By name or folder; none: all.")] = None,
    folder: Annotated[str, typer.Option(help="Where runs lie.")] = "runs",
) -> None:
    """Shows what runs are doing: steps made, time left, the last figures."""
    from pathlib import Path  # noqa: PLC0415

    from orchestrator.folders import RunFolder  # noqa: PLC0415
    from orchestrator.status import status  # noqa: PLC0415

    terminal: Terminal = context.obj
    wanted = runs or sorted(path.parent.name for path in Path(folder).glob("*/recipe.json"))
    found = [status(RunFolder.find(name, folder)) for name in wanted]
    if not found:
        raise ValueError(f"no runs in {folder}")
    terminal.show(table(found))
    terminal.result({"runs": [asdict(each) for each in found]})


def table(found: list[Status]) -> Table:
    """A row a run."""
    from rich.table import Table  # noqa: PLC0415

    shown = Table()
    for heading in ("run", "state", "steps", "left", "silent", "workers", *SHOWN):
        shown.add_column(heading, justify="left" if heading in ("run", "state", "workers") else "right")
    for each in found:
        values = (f"{each.metrics[name]:.3f}" if name in each.metrics else "" for name in SHOWN)
        steps = f"{each.steps:,} of {each.of:,}" if each.of else f"{each.steps:,}"
        times = span(each.seconds_left), span(each.seconds_silent)
        shown.add_row(each.run, each.state, steps, *times, workers(each.metrics), *values)
    usual = {"running": FEW}
    unsent = [f"{e.records_waiting:,} of {e.run}" for e in found if e.records_waiting > usual.get(e.state, 0)]
    shown.caption = f"Records wait for MLflow: {', '.join(unsent)}" if unsent else None
    return shown


def workers(metrics: dict[str, float]) -> str:
    """How many attackers there are, how idle they are, and what has happened to them."""
    if "workers/attackers" not in metrics:
        return ""
    parts = [f"{metrics['workers/attackers']:.0f}", f"{metrics.get('workers/idle_share', 0):.0%} idle"]
    for name in FAULTS:
        count = metrics.get(f"workers/{name}", 0)
        parts += [f"{count:.0f} {name}"] if count else []
    return ", ".join(parts)


def span(seconds: float | None) -> str:
    """A stretch of time in its largest unit."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
