"""An evaluation's table as texts, for a terminal and for pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.evaluations.figures import Relative, Row
from orchestrator.evaluations.outcome import CERTIFIED, WORST, Outcome

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = (
    "attack",
    "accuracy",
    "95 % interval",
    "attacked",
    "forward",
    "backward",
    "median norm",
    "mean norm",
    "relative norm",
    "cross-entropy",
    "precision error",
)  # passes an attacked example


def screen(outcome: Outcome) -> Table:
    """The table for a terminal."""
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    radius = f"{outcome.norm}, eps = {outcome.eps:.4g}"
    table = Table(title=f"{outcome.run}: {outcome.suite} on {outcome.examples} test examples ({radius})")
    headings, *rows = grid(outcome)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def grid(outcome: Outcome) -> list[tuple[str, ...]]:
    """The table as texts, headings first; a column with nothing in it is left out."""
    rows = [cells(row) for row in outcome.table]
    full = [place for place in range(len(HEADINGS)) if any(row[place] for row in rows)]
    return [tuple(row[place] for place in full) for row in (HEADINGS, *rows)]


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table as texts, under HEADINGS."""
    share, own = row.accuracy, row.attack not in ("clean", CERTIFIED, WORST)
    return (
        row.attack,
        "" if share is None else percent(share.value),
        "" if share is None else f"{100 * share.low:.1f} to {100 * share.high:.1f}",
        str(row.examples) if own else "",
        f"{row.forwards:.1f}" if own else "",
        f"{row.backwards:.1f}" if own else "",
        "" if row.norm is None else f"{row.norm} " + ("never" if row.median is None else f"{row.median:.4g}"),
        "" if row.mean is None else f"{row.mean:.4g}",
        "" if row.relative is None else relative(row.relative),
        "" if row.loss is None else f"{row.loss:.2f}",
        "" if row.precision is None else f"{row.precision:.1e}",
    )


def relative(found: Relative) -> str:
    """The mean relative norm of examples that are classified correctly, and how many could not be fooled."""
    mean = "" if found.correct is None else f"{found.correct:.4f}"
    return f"{mean} ({found.failed} not fooled)" if found.failed else mean


def percent(share: float) -> str:
    """A share as a person reads it."""
    return f"{100 * share:.1f} %"
