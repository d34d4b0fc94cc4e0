"""A diagnosis as one page, which needs no network and nothing beside it, and its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.diagnoses.outcome import HEADINGS, Diagnosis, cells
from orchestrator.evaluations.screen import percent
from orchestrator.plots import COLOURS, INK, blank, finish, literal, robust_accuracy
from orchestrator.reports import Tile, drawn, rendered
from workers.prober import Columns

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HISTOGRAMS = {  # column -> what stands below the axis, whether it is logarithmic, from where on it is a sign
    "finite_differences/error": ("relative error against finite differences", True, 0.05),
    "step_sizes/error": ("relative error against the gradient through step sizes", True, 0.05),
    "stationarity/left": ("share of what the gradient offers that PGD leaves", False, 0.4),
    "ascent/rise": ("rise of the margin in one step, over what is promised", False, 0.0),
}
SMALLEST = 1e-16  # relative error that is drawn


class Line(NamedTuple):
    """A finding on the page."""

    cells: tuple[str, ...]
    flagged: bool


class Page(NamedTuple):
    """Everything that the page says."""

    name: str
    subtitle: str
    verdict: str
    masked: bool
    tiles: list[Tile]
    headings: tuple[str, ...]
    lines: list[Line]
    plots: list[Markup]
    steps: list[tuple[str, ...]]  # headings first; none for a network without ODE blocks
    notes: tuple[str, ...]


def render(diagnosis: Diagnosis, columns: Columns) -> str:
    """The page as HTML. `columns`: what was measured, as `outcome.evidence` names it."""
    return rendered("diagnosis.html", page_of(diagnosis, columns))


def page_of(diagnosis: Diagnosis, columns: Columns) -> Page:
    """What the page says."""
    tiles = [
        Tile(name, percent(share.value), f"95 %: {percent(share.low)} to {percent(share.high)}")
        for name, share in (
            ("clean accuracy", diagnosis.clean),
            ("by the reference attack", diagnosis.claimed),
            ("by all attacks together", diagnosis.worst),
        )
    ]
    return Page(
        name=diagnosis.run,
        subtitle=(
            f"diagnosis {diagnosis.budget}: {diagnosis.examples} test examples, "
            f"{diagnosis.norm} radius {diagnosis.eps:.4g}"
        ),
        verdict=diagnosis.verdict,
        masked=diagnosis.masked,
        tiles=tiles,
        headings=HEADINGS,
        lines=[Line(cells(finding), finding.flagged) for finding in diagnosis.findings],
        plots=[drawn(figure, name) for name, figure in figures_of(diagnosis, columns).items()],
        steps=steps_of(diagnosis),
        notes=diagnosis.notes,
    )


def steps_of(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """The solvers' steps as a table."""
    if not diagnosis.steps:
        return []
    rows = [
        (g.block, str(g.iterations), ", ".join(f"{t:.3f}" for t in g.times), str(g.rejected), str(g.evaluations))
        for g in diagnosis.steps
    ]
    return [("block", "PGD iterations", "times of the steps", "rejected", "evaluations"), *rows]


def figures_of(diagnosis: Diagnosis, columns: Columns) -> dict[str, Figure]:
    """The plots by name."""
    found = {"attacks": stands(diagnosis), "growth": robust_accuracy([diagnosis.growth])}
    for key, (about, logarithmic, sign) in HISTOGRAMS.items():
        if key in columns:
            values = np.asarray(columns[key], float)
            found[key.replace("/", "-")] = histogram(values, about, logarithmic, sign)
    return found


def stands(diagnosis: Diagnosis) -> Figure:
    """Robust accuracy under each attack together with the reference, with 95 % intervals."""
    rows = diagnosis.stands[::-1]
    figure = blank(5.2, 0.9 + 0.28 * len(rows))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        value, low, high = (100 * part for part in (row.accuracy.value, row.accuracy.low, row.accuracy.high))
        colour = COLOURS[0] if place < len(rows) - 1 else COLOURS[1]
        axes.plot([low, high], [place, place], color=colour, linewidth=1.5)
        axes.plot([value], [place], color=colour, marker="o", markersize=6)
    axes.axvline(100 * diagnosis.claimed.value, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [literal(row.attack) for row in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("robust accuracy (%),\neach attack together with the reference")
    finish(axes)
    return figure


def histogram(values: NDArray[np.float64], about: str, logarithmic: bool, sign: float) -> Figure:
    """How often which value was measured, and from where on it is a sign of masking."""
    figure = blank(5.2, 3.2)
    axes = figure.add_subplot()
    if logarithmic:
        values = np.log10(np.clip(values, SMALLEST, 1 / SMALLEST))
        sign, about = float(np.log10(sign)), f"log10 of the {about}"
    draw(axes, values, sign)
    axes.set_xlabel(about)
    axes.set_ylabel("examples")
    finish(axes)
    return figure


def draw(axes: Axes, values: NDArray[np.float64], sign: float) -> None:
    """Bars, and the line."""
    low, high = min(float(values.min()), sign), max(float(values.max()), sign)
    room = 0.05 * (high - low) or 0.5
    axes.hist(values, bins=np.linspace(low - room, high + room, 33).tolist(), color=COLOURS[0])
    axes.axvline(sign, color=COLOURS[1], linewidth=1.5, linestyle="--", label="where the sign begins")
