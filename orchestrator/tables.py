"""A study's table: ours beside what the paper prints, for a terminal, a page and a program."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from orchestrator.study import Column, Study

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.table import Table


class Entry(NamedTuple):
    """A cell of the table."""

    ours: tuple[float, ...]  # a value a seed; empty: the figure was not measured
    published: float | None

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.ours) if self.ours else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds, where there are several."""
        return statistics.stdev(self.ours) if len(self.ours) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.mean is None or self.published is None else self.mean - self.published


@final
@dataclass(frozen=True)
class Reproduction:
    """A study's table."""

    study: Study
    budget: str
    seeds: tuple[int, ...]
    entries: dict[str, dict[str, Entry]]  # by the titles of row and column
    runs: dict[str, list[str]]  # names of the runs behind each row
    folder: Path  # holds `table.json` and `study.html`
    tracking_url: str

    def text(self, row: str, column: Column) -> tuple[str, str, str]:
        """A cell as texts: ours with its spread, the paper's, and the difference; empty where there is none."""
        entry, places = self.entries[row][column.title], column.decimals
        ours = "" if entry.mean is None else f"{entry.mean:.{places}f}"
        if entry.spread is not None:
            ours += f" ± {entry.spread:.{places}f}"
        published = "" if entry.published is None else f"{entry.published:.{places}f}"
        return ours, published, "" if entry.difference is None else f"{entry.difference:+.{places}f}"


def screen(made: Reproduction) -> Table:
    """The table for a terminal: in each cell ours, and in brackets the paper's."""
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    shown = Table(title=f"{made.study.paper}: ours (the paper's), budget {made.budget}, seeds {seeds(made)}")
    for heading in ("", *(column.title for column in made.study.columns)):
        shown.add_column(heading, justify="right" if heading else "left")
    for row in made.study.rows:
        cells = [made.text(row.title, column) for column in made.study.columns]
        shown.add_row(row.title, *(f"{ours} ({published})" if published else ours for ours, published, _ in cells))
    return shown


def seeds(made: Reproduction) -> str:
    """`0, 1, 2`."""
    return ", ".join(map(str, made.seeds))


def plain(made: Reproduction) -> dict[str, Any]:
    """The table for a program."""
    rows = {
        row: {
            title: {"ours": list(entry.ours), "mean": entry.mean, "spread": entry.spread, "published": entry.published}
            for title, entry in entries.items()
        }
        for row, entries in made.entries.items()
    }
    study = {"about": made.study.about, "paper": made.study.paper}
    return {**study, "budget": made.budget, "seeds": list(made.seeds), "rows": rows, "runs": made.runs}


class Page(NamedTuple):
    """What a study's page says."""

    name: str
    subtitle: str
    columns: list[tuple[str, int]]  # title, and how many texts a cell has: ours alone where nothing is published
    rows: list[tuple[str, list[tuple[str, ...]], list[str], str]]  # title, cells, runs, note
    notes: list[str]
    pictures: list[Markup]


def page(made: Reproduction, pictures: list[Markup]) -> Page:
    """The table for a page, and what is drawn below it."""
    study = made.study
    widths = [3 if any(column.title in row.published for row in study.rows) else 1 for column in study.columns]
    texts = {row.title: [made.text(row.title, column) for column in study.columns] for row in study.rows}
    cells = {title: [text[:width] for text, width in zip(found, widths, strict=True)] for title, found in texts.items()}
    rows = [(row.title, cells[row.title], made.runs[row.title], row.note) for row in study.rows]
    notes = [note for note in (study.note, study.budgets[made.budget].note) if note]
    columns = [(column.title, width) for column, width in zip(study.columns, widths, strict=True)]
    return Page(
        study.paper, f"{study.about} Budget {made.budget}, seeds {seeds(made)}.", columns, rows, notes, pictures
    )
