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


Texts = tuple[str, str, str]  # of a cell: ours with its spread, the paper's, and the difference


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

    def text(self, row: str, column: Column) -> Texts:
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
    headings, lines = grid(made)
    for heading in ("", *headings):
        shown.add_column(heading, justify="right" if heading else "left")
    for title, cells in lines:
        shown.add_row(title, *(f"{ours} ({published})" if published else ours for ours, published, _ in cells))
    return shown


def grid(made: Reproduction) -> tuple[list[str], list[tuple[str, list[Texts]]]]:
    """The headings of the table as it is shown, and its lines: a title, and the texts of each cell."""
    study = made.study
    models, figures = [row.title for row in study.rows], [column.title for column in study.columns]
    by_model = [[made.text(model, column) for column in study.columns] for model in models]
    if study.across == "figures":
        return figures, list(zip(models, by_model, strict=True))
    return models, list(zip(figures, map(list, zip(*by_model, strict=True)), strict=True))


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
    corner: str  # what the lines are
    columns: list[tuple[str, int]]  # title, and how many texts a cell has: ours alone where nothing is published
    rows: list[tuple[str, list[tuple[str, ...]]]]  # title, cells
    models: list[tuple[str, list[str], str]]  # title, runs, note
    notes: list[str]
    pictures: list[Markup]


def page(made: Reproduction, pictures: list[Markup]) -> Page:
    """The table for a page, and what is drawn below it."""
    study = made.study
    headings, lines = grid(made)
    widths = [3 if any(cells[i][1] for _, cells in lines) else 1 for i in range(len(headings))]
    return Page(
        name=study.paper,
        subtitle=f"{study.about} Budget {made.budget}, seeds {seeds(made)}.",
        corner="model" if study.across == "figures" else "figure",
        columns=list(zip(headings, widths, strict=True)),
        rows=[(t, [cell[:width] for cell, width in zip(cells, widths, strict=True)]) for t, cells in lines],
        models=[(row.title, made.runs[row.title], row.note) for row in study.rows],
        notes=[note for note in (study.note, study.budgets[made.budget].note) if note],
        pictures=pictures,
    )
