"""`sparring compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.terminal import Terminal

if TYPE_CHECKING:
    from orchestrator.comparison import Comparison


def run(
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="""Names, folders, MLflow ids, or "params.seed = '0'".""")
    ],
    page: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("comparison.html"),
    folder: Annotated[str, typer.Option(help="Of the runs.")] = "runs",
    uri: Annotated[str, typer.Option(help="Of MLflow; empty: MLFLOW_TRACKING_URI, or the file in the folder.")] = "",
    experiment: Annotated[str, typer.Option(help="In MLflow, of the runs and of the comparison.")] = "sparring",
    log: Annotated[bool, typer.Option(help="Whether the page goes to MLflow, as a run of its own.")] = True,
) -> None:
    """Shows runs side by side: what differs, which is better on the same examples, at what cost. Writes one page."""
    from orchestrator import comparison  # noqa: PLC0415 - torch takes a second
    from orchestrator.commands.train import nearby  # noqa: PLC0415
    from orchestrator.recipe import Tracking  # noqa: PLC0415

    terminal: Terminal = context.obj
    where = Tracking(folder=folder, uri=uri, experiment=experiment)
    with terminal.progress() as listener:
        made = comparison.compare(runs, where, listener)
        comparison.write_page(made, page)
        address = comparison.publish(made, page, where, listener) if log else ""
    for table in comparison.screens(made):
        terminal.show(table)
    for side in made.sides:
        for problem in side.problems:
            terminal.say(f"{side.name}: {problem}")
    terminal.say(f"page    {nearby(page.resolve())}")
    if address:
        terminal.say(f"MLflow  {address}")
    terminal.result(plain(made, page) | {"mlflow": address})


def plain(made: Comparison, page: Path) -> dict[str, Any]:
    """The same for a program."""
    from orchestrator.comparison import share_of, title_of  # noqa: PLC0415

    names = [side.name for side in made.sides]
    worst = {g: {s.name: share_of(s.outcomes.get(g), "worst case") for s in made.sides} for g in made.groups}
    return {
        "accuracy": {title_of(g): {n: None if s is None else s.value for n, s in worst[g].items()} for g in worst},
        "pairs": {title_of(g): [{**p._asdict(), "verdict": p.verdict} for p in made.pairs[g]] for g in made.groups},
        "differing": {key: dict(zip(names, values, strict=True)) for key, values in made.differing},
        "problems": {side.name: list(side.problems) for side in made.sides},
        "page": str(page.resolve()),
    }
