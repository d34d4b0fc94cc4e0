"""A comparison of runs: a table for a terminal, and one page that needs no network and nothing beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator import provenance
from orchestrator.comparisons import charts, distributions
from orchestrator.comparisons.charts import Chart
from orchestrator.comparisons.pairs import Pair, against_first
from orchestrator.comparisons.sides import Group, Side, differing, groups, side_of
from orchestrator.evaluation import PATIENCE
from orchestrator.evaluations.drawing import pictures
from orchestrator.evaluations.figures import Share
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.screen import percent
from orchestrator.folders import RunFolder, write_atomically
from orchestrator.image_plots import image_grid
from orchestrator.listener import Listener, Silent
from orchestrator.lookup import find_runs
from orchestrator.recipe import Tracking
from orchestrator.reports import drawn, rendered
from orchestrator.tracking import Tracker

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.table import Table

GRIDS = 6  # runs whose images are shown
CHARTS = (charts.robustness, charts.learning, distributions.convergence, distributions.spectra)


class Comparison(NamedTuple):
    """Runs side by side."""

    sides: list[Side]
    differing: list[tuple[str, list[str]]]
    groups: list[Group]
    pairs: dict[Group, list[Pair]]  # the later runs against the first


def compare(names: Sequence[str], where: Tracking, listener: Listener = Silent()) -> Comparison:  # noqa: B008
    """Compares runs given by name, folder, MLflow id or query. Raises ValueError for one that is nowhere."""
    listener.begin("reading runs", len(names), "names")
    sides = []
    for folder, series in find_runs(names, where, list(charts.CURVES)):
        side = side_of(folder)
        sides.append(side._replace(series=series) if series else side)
    listener.end("reading runs")
    kinds = groups(sides)
    return Comparison(sides, differing(sides), kinds, {kind: against_first(sides, kind) for kind in kinds})


def title_of(group: Group) -> str:
    """`standard, linf radius 0.3`."""
    suite, norm, eps = group
    return f"{suite}, {norm} radius {eps:.4g}"


def attacks_of(made: Comparison, group: Group) -> list[str]:
    """The rows that an evaluation's table has in any of the runs, in their order."""
    tables = [side.outcomes[group].table for side in made.sides if group in side.outcomes]
    return list(dict.fromkeys(row.attack for table in tables for row in table if row.accuracy is not None))


def share_of(outcome: Outcome | None, attack: str) -> Share | None:
    """The accuracy under an attack, if it was measured."""
    return None if outcome is None else next((row.accuracy for row in outcome.table if row.attack == attack), None)


def cells(made: Comparison, group: Group, *, intervals: bool) -> list[tuple[str, ...]]:
    """A row a run: accuracies, gradients spent, and how it does against the first run."""
    verdicts = {pair.first: pair for pair in made.pairs[group]}
    rows = []
    for side in made.sides:
        outcome = side.outcomes.get(group)
        shares = [share_of(outcome, attack) for attack in attacks_of(made, group)]
        spent = "" if outcome is None else f"{sum(row.backwards * row.examples for row in outcome.table):,.0f}"
        rows.append(
            (side.name, *(_text(share, intervals) for share in shares), spent, _paired(verdicts.get(side.name)))
        )
    return rows


def _text(share: Share | None, intervals: bool) -> str:
    if share is None:
        return "not measured"
    interval = f" ({100 * share.low:.1f} to {100 * share.high:.1f})" if intervals else ""
    return percent(share.value) + interval


def _paired(pair: Pair | None) -> str:
    """How a run does against the first: a difference with its interval, only where examples are the same."""
    if pair is None or pair.reason:
        return "" if pair is None else pair.reason
    low, high = pair.interval
    chance = "p < 0.001" if pair.chance < 0.001 else f"p = {pair.chance:.3f}"
    return f"{100 * pair.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {chance}: {pair.verdict}"


def screens(made: Comparison) -> list[Table]:
    """The tables for a terminal: an evaluation each, and what differs between the recipes."""
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    shown = []
    for group in made.groups:
        table = Table(title=title_of(group))
        for heading in ("run", *attacks_of(made, group), "gradients", f"against {made.sides[0].name}"):
            table.add_column(heading)
        for row in cells(made, group, intervals=False):
            table.add_row(*row)
        shown.append(table)
    table = Table(title="What differs between the recipes")
    for heading in ("key", *(side.name for side in made.sides)):
        table.add_column(heading)
    for key, values in made.differing:
        table.add_row(key, *values)
    return [*shown, table]


class Shown(NamedTuple):
    """An evaluation on the page."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Page(NamedTuple):
    """Everything that the page says."""

    name: str
    sides: list[tuple[str, str, str, str, tuple[str, ...]]]  # name, state, gradients and seconds of training, problems
    differing: list[tuple[str, list[str]]]
    evaluations: list[Shown]
    charts: list[tuple[Chart, Markup]]  # with the figure as JSON
    verdicts: list[tuple[str, str]]
    images: list[tuple[str, Markup]]
    script: Markup


def write_page(made: Comparison, path: Path) -> None:
    """Writes the page."""
    write_atomically(path, rendered("compare.html", page_of(made)).encode())


def publish(made: Comparison, page: Path, where: Tracking, listener: Listener = Silent()) -> str:  # noqa: B008
    """Logs a written page to MLflow, as a run of its own that names those it compares, and returns its address.

    The same comparison made again goes to the same run. Raises ValueError for an address that cannot be.
    """
    names = [side.name for side in made.sides]
    digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    folder = RunFolder(Path(where.folder).resolve() / "comparisons" / digest[:8])
    with Tracker.open(folder, where, {"runs": names}, listener) as tracker:
        tracker.tags(provenance.title("comparison", " | ".join(names)))
        tracker.artifact(page)
        tracker.finish("FINISHED", PATIENCE)
        return tracker.url


def page_of(made: Comparison) -> Page:
    """What the page says."""
    drawn_charts = [chart for kind in CHARTS for chart in kind(made.sides)]
    against = f"against {made.sides[0].name}, points"
    tables = [
        Shown(title_of(g), ("run", *attacks_of(made, g), "gradients", against), cells(made, g, intervals=True))
        for g in made.groups
    ]
    return Page(
        name=f"Comparison of {len(made.sides)} runs",
        sides=[(side.name, side.state, *_cost(side), side.problems) for side in made.sides],
        differing=made.differing,
        evaluations=tables,
        charts=[(chart, _json(chart.figure)) for chart in drawn_charts],
        verdicts=[(side.name, side.diagnosis.verdict) for side in made.sides if side.diagnosis is not None],
        images=[(side.name, grid) for side in made.sides[:GRIDS] for grid in _images(side)],
        script=_safe(_plotly()) if drawn_charts else _safe(""),
    )


def _cost(side: Side) -> tuple[str, str]:
    """Gradients a training example has cost on average, and the seconds that steps took in all."""
    gradients = [value for _, value in side.series.get("cost/backwards_per_example", [])]
    seconds = sum(value for _, value in side.series.get("seconds/step", []))
    mean = f"{sum(gradients) / len(gradients):.1f}" if gradients else ""
    return mean, f"{seconds:,.0f}" if seconds else ""


def _images(side: Side) -> list[Markup]:
    """The images of a run's newest evaluation, where it kept some."""
    for outcome in side.outcomes.values():
        examples = pictures(outcome)
        if examples:
            return [drawn(image_grid(examples), f"images of {side.name}")]
    return []


def _json(figure: dict[str, Any]) -> Markup:
    """JSON that no browser takes for markup."""
    text = json.dumps(figure)
    return _safe(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _safe(text: str) -> Markup:
    from markupsafe import Markup  # noqa: PLC0415 - only where a page is made

    return Markup(text)  # noqa: S704 - Plotly's own script, or JSON with its signs escaped


def _plotly() -> str:
    """Plotly's script, which its package holds: the page asks no other host for it."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - megabytes

    return str(get_plotlyjs()) + "\n"
