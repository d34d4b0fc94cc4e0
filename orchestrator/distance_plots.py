"""Plots of how far adversarial images are: distributions, and paths over a setting.

As in Matyasko 2021 (https://doi.org/10.32657/10356/143316): Figure 3.6; Figures 3.4 and 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.plots import COLOURS, MARKERS, blank, finish, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIGMAS = 3.0  # half the height of a path's band, in standard deviations between runs
Numbers = NDArray[np.float64]


class Step(NamedTuple):
    """What runs with one value of a setting came to, a number a run."""

    value: float
    errors: Sequence[float]  # shares of the test part, clean
    relative: Sequence[float]  # mean relative norms


def distribution(samples: Mapping[str, Numbers]) -> Figure:
    """Relative norms by attack: a histogram, and a Gaussian kernel density estimate with Silverman's bandwidth."""
    figure = blank(5.6, 3.6)
    axes = figure.add_subplot()
    largest = max(float(sample.max()) for sample in samples.values())
    places = np.linspace(0, 1.1 * largest, 200)
    for number, (name, sample) in enumerate(samples.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.hist(sample, bins=40, range=(0, 1.1 * largest), density=True, color=colour, alpha=0.2)
        axes.plot(places, density(sample, places), color=colour, label=literal(f"{name} ({len(sample)} examples)"))
    axes.set_xlabel("norm of the perturbation over that of the image")
    axes.set_ylabel("density")
    axes.set_xlim(left=0)
    finish(axes)
    return figure


def density(sample: Numbers, places: Numbers) -> Numbers:
    """The kernel density estimate of a sample. Where all of it is one number, or there is one, a narrow bell."""
    from sklearn.neighbors import KernelDensity  # noqa: PLC0415 - takes a second

    spread = float(sample.std()) * (4 / (3 * len(sample))) ** 0.2  # Silverman's rule for one axis
    kernel = KernelDensity(bandwidth=max(spread, 1e-3 * max(float(places.max()), 1e-9))).fit(sample.reshape(-1, 1))
    return np.asarray(np.exp(kernel.score_samples(places.reshape(-1, 1))))


def path(steps: Sequence[Step], setting: str) -> Figure:
    """Test error and mean relative norm over a setting; bands of three standard deviations between runs."""
    figure = blank(9.6, 3.4)
    values = [step.value for step in steps]
    for place, (name, factor) in enumerate((("test error (%)", 100.0), ("mean relative norm", 1.0))):
        axes = figure.add_subplot(1, 2, place + 1)
        columns = [step.errors if place == 0 else step.relative for step in steps]
        _draw_band(axes, values, [factor * np.asarray(column, float) for column in columns], place)
        if min(values) > 0:
            axes.set_xscale("log")
        axes.set_xlabel(literal(setting))
        axes.set_ylabel(name)
        finish(axes)
    return figure


def _draw_band(axes: Axes, values: Sequence[float], columns: Sequence[Numbers], number: int) -> None:
    means, spreads = (np.array([getattr(column, what)() for column in columns]) for what in ("mean", "std"))
    axes.plot(values, means, color=COLOURS[number], marker=MARKERS[number])
    axes.fill_between(values, means - SIGMAS * spreads, means + SIGMAS * spreads, color=COLOURS[number], alpha=0.15)
