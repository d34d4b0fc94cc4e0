"""Plots of the first-order condition: its distribution, how it goes with an attack's strength, and its way down.

They follow Figures 1, 2, 3 and 5 of Wang et al. 2019 (https://arxiv.org/abs/2112.08304). Each returns a new figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms.diagnostics.convergence import Group, groups
from algorithms.diagnostics.density import density
from orchestrator.plots import COLOURS, MARKERS, blank, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
TITLES = {
    "fosc": "first-order condition, over the ball",
    "fosc_box": "first-order condition, over images in the ball",
    "loss": "cross-entropy",
}
POINTS = 400  # of a drawn density
WHOLE = 0.995  # the axis ends where this share of all values lies
GROUPS = 20  # of Figure 1a


def densities(panels: Mapping[str, Mapping[str, Values]]) -> Figure:
    """Kernel densities: a panel a quantity (a name in TITLES), a line for each of its named samples."""
    figure = blank(5.2 * max(1, len(panels)), 3.4)
    for place, (quantity, samples) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        end = float(np.quantile(np.concatenate([*samples.values(), np.zeros(1)]), WHOLE)) or 1.0
        at = torch.linspace(0, end, POINTS, dtype=torch.float64)
        for number, (name, values) in enumerate(samples.items()):
            drawn = density(torch.from_numpy(np.array(values, float)), at)
            axes.plot(at.numpy(), drawn.numpy(), color=COLOURS[number % len(COLOURS)], label=name)
        axes.set_xlabel(TITLES[quantity])
        axes.set_ylabel("density")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, end)
        finish(axes)
    return figure


def strength(condition: Values, loss: Values, right: NDArray[np.bool_]) -> Figure:
    """Accuracy and mean loss of groups of examples by their condition; the area of a mark says how many they are."""
    end = float(np.quantile(condition, WHOLE)) or 1.0
    at, height, hit = (torch.from_numpy(np.array(values)) for values in (condition, loss, right))
    found = [group for group in groups(at, height, hit, end * (1 + 1e-9), GROUPS) if group.examples]
    figure = blank(5.6, 3.4)
    left = figure.add_subplot()
    twin = left.twinx()
    _marks(left, found, [100 * group.accuracy for group in found], 0)
    _marks(twin, found, [group.loss for group in found], 1)
    left.set_xlabel(TITLES["fosc"])
    left.set_ylabel("accuracy (%)")
    left.set_ylim(0, 100)
    twin.set_ylabel("mean cross-entropy")
    for axes, number in ((left, 0), (twin, 1)):
        finish(axes)
        axes.yaxis.label.set_color(COLOURS[number])
    twin.grid(visible=False)
    twin.spines["right"].set_visible(True)
    return figure


def ways(condition: Values, loss: Values) -> Figure:
    """Condition (left) and loss (right) of single examples, (points, examples), at each point of an attack."""
    figure = blank(10.4, 3.4)
    for place, (paths, title) in enumerate(((condition, TITLES["fosc"]), (loss, TITLES["loss"]))):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.plot(np.arange(len(paths)), paths, color=COLOURS[place], linewidth=1, alpha=0.6)
        axes.set_xlabel("gradients so far")
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        finish(axes)
    return figure


def stages(epochs: Sequence[int], most: int = 5) -> list[int]:
    """At most `most` of the epochs, evenly spread, the first and the last among them."""
    if len(epochs) <= most:
        return list(epochs)
    return [epochs[round(i * (len(epochs) - 1) / (most - 1))] for i in range(most)]


def _marks(axes: Axes, found: Sequence[Group], heights: Sequence[float], number: int) -> None:
    """A mark a group, in its middle."""
    middles = [(group.low + group.high) / 2 for group in found]
    largest = max((group.examples for group in found), default=1)
    sizes = [12 + 60 * group.examples / largest for group in found]
    axes.plot(middles, heights, color=COLOURS[number], linewidth=0.8, alpha=0.6)
    axes.scatter(middles, heights, s=sizes, color=COLOURS[number], marker=MARKERS[number])
