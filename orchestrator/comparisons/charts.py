"""The charts of a comparison: Plotly's, one each, with the numbers behind it as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from orchestrator.comparisons.sides import Side
from orchestrator.evaluations.figures import Curve
from orchestrator.history import thinned
from orchestrator.plots import COLOURS, UNITS

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "x", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
POINTS = 200  # of a learning curve
CURVES = {  # metrics of a training that are drawn: what they are called, and the unit
    "train/loss": ("training loss", "loss"),
    "validation/clean_accuracy": ("clean accuracy on validation examples", "accuracy (%)"),
    "validation/robust_accuracy": ("robust accuracy on validation examples", "accuracy (%)"),
    "train/fosc": ("FOSC of training examples", "FOSC"),
    "cost/backwards_per_example": ("gradients a training example", "gradients"),
}


class Chart(NamedTuple):
    """A chart and the table behind it."""

    title: str
    figure: dict[str, Any]  # Plotly's JSON
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def robustness(sides: Sequence[Side]) -> list[Chart]:
    """Robust accuracy against the radius: a chart a norm, with every curve of every run in it."""
    charts = []
    curves = [(side, curve) for side in sides for curve in _curves(side)]
    for norm in dict.fromkeys(curve.norm for _, curve in curves):
        lines: list[dict[str, Any]] = []
        rows: list[tuple[str, ...]] = []
        for number, side in enumerate(sides):
            for curve in (c for s, c in curves if s is side and c.norm == norm):
                lines.append(_curve(side, curve, number))
                rows += [
                    (side.name, curve.attack, f"{point.eps:.4g}", f"{100 * point.accuracy.value:.1f}")
                    for point in curve.points[:: max(1, len(curve.points) // 12)]
                ]
        drawn = figure(lines, UNITS[norm], "robust accuracy (%)")
        drawn["layout"]["yaxis"]["range"] = [0, 100]
        charts.append(Chart(f"Robust accuracy, {norm}", drawn, ("run", "attack", "radius", "accuracy (%)"), rows))
    return charts


def learning(sides: Sequence[Side]) -> list[Chart]:
    """What trainings recorded, against the updates made."""
    charts = []
    for metric, (title, unit) in CURVES.items():
        known = [(number, side, side.series[metric]) for number, side in enumerate(sides) if side.series.get(metric)]
        if not known:
            continue
        share = "%" in unit
        lines: list[dict[str, Any]] = []
        rows: list[tuple[str, ...]] = []
        for number, side, series in known:
            points = [(x, 100 * y if share else y) for x, y in thinned(series, POINTS)]
            lines.append(line(side.name, points, number))
            rows.append((side.name, f"{points[0][1]:.4g}", f"{points[-1][1]:.4g}", f"{points[-1][0]:,.0f}"))
        headings = ("run", "first", "last", "updates")
        charts.append(Chart(title[0].upper() + title[1:], figure(lines, "updates", unit), headings, rows))
    return charts


def _curves(side: Side) -> list[Curve]:
    """The curves of a run; what several of its evaluations have says of which suite it is."""
    found = [(outcome.suite, curve) for outcome in side.outcomes.values() for curve in outcome.curves]
    often = Counter((curve.attack, curve.norm) for _, curve in found)
    return [
        curve if often[curve.attack, curve.norm] == 1 else replace(curve, attack=f"{curve.attack} ({suite})")
        for suite, curve in found
    ]


def _curve(side: Side, curve: Curve, number: int) -> dict[str, Any]:
    points = [(point.eps, 100 * point.accuracy.value) for point in curve.points]
    drawn = line(f"{side.name}, {curve.attack}", points, number)
    if curve.steps:
        drawn["line"]["shape"] = "hv"
        drawn["mode"] = "lines"
    return drawn


def line(name: str, points: Sequence[tuple[float, float]], number: int) -> dict[str, Any]:
    """A line that differs from the others in colour, dash and symbol."""
    colour = COLOURS[number % len(COLOURS)]
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines" if len(points) > 40 else "lines+markers",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": {"color": colour, "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8},
        "hovertemplate": "%{y:.4g} at %{x:.4g}<extra>%{fullData.name}</extra>",
    }


def figure(lines: list[dict[str, Any]], across: str, up: str) -> dict[str, Any]:
    """Lines with their axes; colours of text and grid come from the page."""
    layout = {
        "xaxis": {"title": {"text": across}, "rangemode": "tozero", "automargin": True},
        "yaxis": {"title": {"text": up}, "automargin": True},
        "legend": {"orientation": "h", "y": -0.25},
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 420,
    }
    return {"data": lines, "layout": layout}
