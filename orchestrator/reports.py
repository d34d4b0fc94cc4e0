"""A run as one page: `report.html` in its folder, which needs no network and nothing beside it.

What a user wrote (names, paths, recipes) is escaped by the template; the only markup that is not is our own plots.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from algorithms import plugins
from orchestrator import convergence
from orchestrator.config import resolve, stored_recipe, to_toml
from orchestrator.config.kinds import defaults_of, fields_of, is_plugin, is_section
from orchestrator.diagnoses.outcome import Diagnosis
from orchestrator.evaluations.drawing import convergence_of as convergence_in
from orchestrator.evaluations.drawing import measured, pictures
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.screen import grid, percent
from orchestrator.folders import RunFolder, write_atomically
from orchestrator.history import History, Series, history, thinned
from orchestrator.image_plots import image_grid
from orchestrator.plots import measures, robust_accuracy, spectra, stability_curves, svg, training_curves
from orchestrator.recipe import Recipe
from orchestrator.stability import PREFIX, spectra_in

if TYPE_CHECKING:
    from markupsafe import Markup

CURVES = ("loss", "accuracy")  # metrics with these in their names are drawn, a plot each, if they are
MEASURED = ("train/", "validation/")  # of these: what is called so elsewhere has another unit


class Tile(NamedTuple):
    """A main figure."""

    name: str
    value: str
    note: str


class Shown(NamedTuple):
    """An evaluation on the page."""

    title: str
    subtitle: str
    table: list[tuple[str, ...]]  # headings first
    curves: list[Markup]
    images: Markup | None
    images_title: str


class Judgement(NamedTuple):
    """A diagnosis on the page."""

    budget: str
    verdict: str
    masked: bool
    page: str  # where its own page lies, seen from the run's folder


class Page(NamedTuple):
    """Everything that the page says."""

    name: str
    subtitle: str
    tiles: list[Tile]
    evaluations: list[Shown]
    diagnoses: list[Judgement]
    training: list[Markup]
    stability: list[Markup]
    metrics: list[tuple[str, str, str]]
    differences: list[tuple[str, str, str]]
    recipe: str
    tags: list[tuple[str, str]]


def write_report(folder: RunFolder) -> Path:
    """Writes the page of a run, from what its folder holds now, and returns its path."""
    write_atomically(folder.report, render(page_of(folder)).encode())
    return folder.report


def page_of(folder: RunFolder) -> Page:
    """What the page of a run says."""
    recipe = stored_recipe(folder.recipe)
    known = history(folder)
    outcomes = outcomes_of(folder)
    updates = max((points[-1][0] for points in known.series.values()), default=0.0)
    names = [plugins.name_of(part) for part in (recipe.model, recipe.dataset, recipe.defense)]
    return Page(
        name=folder.name,
        subtitle=f"{names[0]} on {names[1]}, defense {names[2]}, {updates:,.0f} updates, seed {recipe.seed}",
        tiles=tiles_of(outcomes[0]) if outcomes else [],
        evaluations=[shown_of(outcome, number) for number, outcome in enumerate(outcomes)],
        diagnoses=diagnoses_of(folder),
        training=training_of(known) + convergence_of(folder),
        stability=stability_of(folder, known),
        metrics=[
            (name, f"{points[-1][1]:.5g}", f"{points[-1][0]:,.0f}") for name, points in sorted(known.series.items())
        ],
        differences=[(key, text(here), text(default)) for key, here, default in differences(recipe)],
        recipe=to_toml(recipe),
        tags=sorted(known.tags.items()),
    )


def outcomes_of(folder: RunFolder) -> list[Outcome]:
    """The finished evaluations of a run, newest first."""
    files = sorted(folder.evaluations.glob("*/outcome.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = (Outcome.read(path.parent) for path in files)
    return [outcome for outcome in found if outcome is not None]


def diagnoses_of(folder: RunFolder) -> list[Judgement]:
    """The verdicts of the finished diagnoses of a run, newest first."""
    files = sorted(folder.diagnoses.glob("*/diagnosis.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = (Diagnosis.read(path.parent) for path in files)
    return [Judgement(d.budget, d.verdict, d.masked, d.page.relative_to(folder.path).as_posix()) for d in found if d]


def tiles_of(outcome: Outcome) -> list[Tile]:
    """The main figures of an evaluation."""
    tiles = []
    for row in (outcome.table[0], outcome.table[-1]):
        if row.accuracy is not None:
            name = "clean accuracy" if row is outcome.table[0] else f"robust accuracy, {radius_of(outcome)}"
            note = f"95 %: {percent(row.accuracy.low)} to {percent(row.accuracy.high)}"
            tiles.append(Tile(name, percent(row.accuracy.value), note))
    return [*tiles, Tile("test examples", f"{outcome.examples:,}", f"suite {outcome.suite}")]


def shown_of(outcome: Outcome, number: int) -> Shown:
    """An evaluation with its plots. `number` keeps the ids of its plots apart from the others'."""
    marked = outcome.norm, outcome.eps
    norms = dict.fromkeys(curve.norm for curve in outcome.curves)
    panels = [[curve for curve in outcome.curves if curve.norm == norm] for norm in norms]
    names = [f"robust accuracy against the radius, {panel[0].norm}, evaluation {number}" for panel in panels]
    examples, full = pictures(outcome), measured(outcome)
    curves = [drawn(robust_accuracy(c, marked), name) for c, name in zip(panels, names, strict=True)]
    if full:
        curves.append(drawn(measures(full), f"success, cross-entropy and precision error, evaluation {number}"))
    curves += [drawn(figure, f"{name}, evaluation {number}") for name, figure in convergence_in(outcome).items()]
    return Shown(
        title=f"Evaluation: {outcome.suite}",
        subtitle=f"{outcome.examples:,} test examples, {radius_of(outcome)}",
        table=grid(outcome),
        curves=curves,
        images=drawn(image_grid(examples), f"images, evaluation {number}") if examples else None,
        images_title=f"{outcome.shown}: clean images, perturbations and adversarial images",
    )


def radius_of(outcome: Outcome) -> str:
    """The radius that figures are quoted at."""
    return f"{outcome.norm} radius {outcome.eps:.4g}"


def training_of(known: History) -> list[Markup]:
    """The training curves."""
    wanted = {name: points for name, points in known.series.items() if name.startswith(MEASURED)}
    groups: list[dict[str, Series]] = [
        {name: thinned(points) for name, points in wanted.items() if kind in name} for kind in CURVES
    ]
    return [drawn(training_curves(g), f"training, {kind}") for g, kind in zip(groups, CURVES, strict=True) if g]


def convergence_of(folder: RunFolder) -> list[Markup]:
    """How far the training's attacks converged."""
    return [drawn(figure, f"training, {name}") for name, figure in convergence.figures_of(folder).items()]


def stability_of(folder: RunFolder, known: History) -> list[Markup]:
    """Norms of layers through the training, and the last spectra, where they were measured."""
    kept, start = spectra_in(folder), f"{PREFIX}norm/"
    norms = {n.removeprefix(start): thinned(points) for n, points in known.series.items() if n.startswith(start)}
    if kept is None or not norms:
        return []
    return [drawn(stability_curves(norms), "norms of layers"), drawn(spectra(*kept), "spectra of layers")]


def drawn(figure: Any, name: str) -> Markup:
    """A plot of ours as an element of the page."""
    from markupsafe import Markup  # noqa: PLC0415 - only where a page is made

    return Markup(svg(figure, name))  # noqa: S704 - made by matplotlib, which escapes what it writes


def differences(recipe: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Where a recipe differs from the defaults: key, value here, default."""
    yield from _compared(recipe, Recipe(), ())


def _compared(here: Any, default: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    """The differing leaves of two values. Another plug-in is compared with its own defaults."""
    kind = type(here)
    if not is_section(kind):
        if here != default:
            yield ".".join(path), resolve(here), resolve(default)
        return
    if kind is not type(default):
        yield ".".join((*path, "name")) if is_plugin(here) else ".".join(path), name_of(here), name_of(default)
        default = None
    defaults = defaults_of(kind) if default is None else {f: getattr(default, f) for f in fields_of(kind)}
    for field in fields_of(kind):
        yield from _compared(getattr(here, field), defaults.get(field, dataclasses.MISSING), (*path, field))


def name_of(value: Any) -> Any:
    """How a recipe names a plug-in; anything else as it is."""
    return plugins.name_of(value) if is_plugin(value) else resolve(value)


def text(value: Any) -> str:
    """A value of a recipe in a table."""
    if value is dataclasses.MISSING:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def render(page: Page) -> str:
    """The page as HTML. Everything in it is escaped but the plots."""
    return rendered("report.html", page)


def rendered(template: str, page: Any) -> str:
    """A page in one of our templates, with our style."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("orchestrator"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(page=page)
