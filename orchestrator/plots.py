"""The plots of a run: robust accuracy against the radius, images, training curves.

Each function returns a matplotlib `Figure` of its own; no global state is used, and nothing is shown. `png` and `svg`
turn a figure into bytes or into text for a page. Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/),
which people with any kind of colour vision can tell apart; lines differ in their markers too.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.evaluations.figures import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#333333"  # text, axes and grid; a page replaces it by the colour of its own text
BROAD = 1.8  # width over height, from which on a figure is of several panels
UNITS = {
    "linf": "radius ε in the l∞ norm (pixels are in [0, 1])",
    "l2": "radius ε in the l2 norm (pixels are in [0, 1])",
    "l1": "radius ε in the l1 norm (pixels are in [0, 1])",
    "l0": "radius ε in the l0 norm (entries changed)",
    "wasserstein": "radius ε of the Wasserstein ball (cost per unit of mass)",
}


def robust_accuracy(curves: Sequence[Curve], marked: tuple[str, float] | None = None) -> Figure:
    """Accuracy against eps, a panel a norm, with 95 % intervals. `marked`: the norm and radius of the table."""
    norms = list(dict.fromkeys(curve.norm for curve in curves))
    figure = blank(5.2 * max(1, len(norms)), 3.6)
    for place, norm in enumerate(norms):
        axes = figure.add_subplot(1, len(norms), place + 1)
        for number, curve in enumerate(c for c in curves if c.norm == norm):
            _draw_curve(axes, curve, number)
        if marked is not None and marked[0] == norm:
            axes.axvline(marked[1], color=INK, linewidth=1, linestyle=":", label=f"eps = {marked[1]:.4g}")
        axes.set_xlabel(UNITS[norm])
        axes.set_ylabel("robust accuracy (%)")
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        finish(axes)
    return figure


def measures(curves: Sequence[Curve]) -> Figure:
    """Attack success rate, mean cross-entropy and mean precision error against eps, a line an attack."""
    figure = blank(12.6, 3.4)
    for place, unit in enumerate(("attack success rate (%)", "cross-entropy", "precision error")):
        axes = figure.add_subplot(1, 3, place + 1)
        for number, curve in enumerate(curves):
            line = [(p.eps, (100 * (1 - p.accuracy.value), p.loss, p.precision)[place]) for p in curve.points]
            _draw_series(axes, curve.attack, np.array(line, float), number)
        axes.set_xlabel("radius ε (cost per unit of mass)")
        axes.set_ylabel(unit)
        axes.set_xlim(left=0)
        if unit == "precision error":
            axes.set_yscale("symlog", linthresh=1e-9)
        else:
            axes.set_ylim(0, 100 if place == 0 else None)
        finish(axes)
    return figure


def training_curves(series: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Loss on the left, accuracies on the right, over the steps. Names say which: those with `accuracy` go right."""
    groups = {"loss": {}, "accuracy (%)": {}}  # type: dict[str, dict[str, Sequence[tuple[float, float]]]]
    for name, points in series.items():
        groups["accuracy (%)" if "accuracy" in name else "loss"][name] = points
    panels = {unit: lines for unit, lines in groups.items() if lines}
    figure = blank(5.2 * max(1, len(panels)), 3.4)
    for place, (unit, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        factor = 100 if "%" in unit else 1
        for number, (name, points) in enumerate(lines.items()):
            _draw_series(axes, name, np.array(points, float).reshape(-1, 2) * (1, factor), number)
        axes.set_xlabel("updates")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0, top=100 if factor == 100 else None)
        finish(axes)
    return figure


def stability_curves(series: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Norms of layers over the steps, a line a layer."""
    figure = blank(5.2, 3.4)
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(series.items()):
        _draw_series(axes, name, np.array(points, float).reshape(-1, 2), number)
    axes.set_xlabel("updates")
    axes.set_ylabel("largest singular value")
    axes.set_ylim(bottom=0)
    finish(axes)
    return figure


def spectra(sizes: Mapping[str, NDArray[np.float64]], parts: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Singular values of each layer, largest first, and eigenvalues (real, imaginary) of square ones around the circle.

    What the paper of `algorithms.control` shows as its figure 1, for weights that have eigenvalues.
    """
    figure = blank(5.2 * (2 if parts else 1), 4.2 if parts else 3.4)
    left = figure.add_subplot(1, 2 if parts else 1, 1)
    for number, (name, values) in enumerate(sizes.items()):
        ranks = np.arange(1, len(values) + 1) / len(values)
        _draw_series(left, name, np.stack([ranks, values], 1), number)
    left.set_xlabel("rank, as a share of the layer's")
    left.set_ylabel("singular value")
    left.set_ylim(bottom=0)
    finish(left)
    if parts:
        right = figure.add_subplot(1, 2, 2)
        turn = np.linspace(0, 2 * np.pi, 200)
        right.plot(np.cos(turn), np.sin(turn), color=INK, linewidth=1, linestyle=":", label="absolute value 1")
        for number, (name, values) in enumerate(parts.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            right.plot(values[:, 0], values[:, 1], marker, color=colour, markersize=3, label=literal(name))
        right.set_aspect("equal")
        right.set_xlabel("real part of an eigenvalue")
        right.set_ylabel("imaginary part")
        finish(right)
    return figure


def last_layers(rows: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Singular values of one layer of each of several models, largest first: the paper's figure 1 for any weight."""
    figure = blank(7.2, 4.2)
    axes = figure.add_subplot()
    for number, (name, values) in enumerate(rows.items()):
        _draw_series(axes, name, np.stack([np.arange(1, len(values) + 1), values], 1), number)
    axes.axhline(1.0, color=INK, linewidth=1, linestyle=":")
    axes.set_xlabel("rank of a singular value of the last layer")
    axes.set_ylabel("singular value")
    axes.set_ylim(bottom=0)
    finish(axes)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as a PNG file on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element for an HTML page: no background, text in the page's colour, nothing loaded.

    `name` is spoken to those who cannot see it, and keeps its ids apart from those of other figures on the page. One
    of several panels is of the class `broad`, to which a page gives its whole width.
    """
    import matplotlib as mpl  # noqa: PLC0415 - only where plots are made

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "sparring", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", name)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    width, height = figure.get_size_inches()
    wide = 'class="broad" ' if width > BROAD * height else ""
    text = text.replace("<svg ", f'<svg {wide}role="img" aria-label="{html.escape(name)}" ', 1)
    for number, colour in enumerate(COLOURS):  # a page may have lighter ones for a dark background
        text = text.replace(colour.lower(), f"var(--series-{number}, {colour})")
    return text.replace(INK, "currentColor")


def literal(text: str) -> str:
    """A user's text as it is: to matplotlib, what stands between two dollar signs is a formula."""
    return text.replace("$", r"\$")


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curve(axes: Axes, curve: Curve, number: int) -> None:
    """A curve and its interval: a staircase where every radius is known, else points joined by lines."""
    colour = COLOURS[number % len(COLOURS)]
    eps = [point.eps for point in curve.points]
    shares = [(point.accuracy.value, point.accuracy.low, point.accuracy.high) for point in curve.points]
    value, low, high = 100 * np.array(shares).T
    label = literal(f"{curve.attack} ({curve.examples} examples)")
    if curve.steps:
        axes.step(eps, value, where="post", color=colour, label=label, clip_on=False)
        axes.fill_between(eps, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    else:
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(eps, value, color=colour, marker=marker, markersize=5, label=label, clip_on=False)
        axes.fill_between(eps, low, high, color=colour, alpha=0.15, linewidth=0)


def _draw_series(axes: Axes, name: str, points: NDArray[np.float64], number: int) -> None:
    """A series: a thin line where there are many points, with markers where there are few."""
    many = len(points) > 60
    axes.plot(
        points[:, 0],
        points[:, 1],
        color=COLOURS[number % len(COLOURS)],
        linewidth=1 if many else 1.8,
        marker="" if many else MARKERS[number % len(MARKERS)],
        markersize=5,
        label=literal(name),
    )


def finish(axes: Axes) -> None:
    """Grid, legend, and everything that is not data in the ink's colour."""
    axes.grid(color=INK, alpha=0.15, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
