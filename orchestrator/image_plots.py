"""Grids of images, each with a caption above it. Each function returns a new figure.

All images are in one pair of axes, with columns as units: a pair for each image takes several times as long to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.plots import COLOURS, INK, blank, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, TALL = 0.92, 1.17  # of an image, and from one line to the next: a column is 1 wide
INCHES = 1.25  # a column
MARKS = {True: "✓", False: "✗"}


class Picture(NamedTuple):
    """An image (channels, height, width) in [0, 1], and what stands above it."""

    image: NDArray[np.float32]
    caption: str
    wrong: bool = False  # the caption is in another colour
    signed: bool = False  # one channel in blue (darker) and red (brighter) instead of grey


class Example(NamedTuple):
    """An image, what an attack made of it, and what the model says to both."""

    clean: NDArray[np.float32]  # (channels, height, width) in [0, 1]
    adversarial: NDArray[np.float32]
    label: str
    predicted: str
    predicted_adv: str


def image_grid(examples: Sequence[Example], title: str = "") -> Figure:
    """A column an example: the clean image, the perturbation made visible, the adversarial image."""
    names = ("clean", "perturbation", "adversarial")
    columns = [_pictures(example) for example in examples]
    return grid([(name, [column[row] for column in columns]) for row, name in enumerate(names)], title)


def grid(lines: Sequence[tuple[str, Sequence[Picture]]], title: str = "") -> Figure:
    """Lines of pictures below each other, each with its name on the left."""
    count = max(1, *(len(pictures) for _, pictures in lines))
    figure = blank(INCHES * (count + 0.3), INCHES * TALL * len(lines) + (0.3 if title else 0))
    axes = figure.add_subplot(xlim=(-0.25, count), ylim=(TALL * (len(lines) - 1) + SIDE + 0.03, -0.2), aspect="equal")
    axes.axis("off")
    for row, (name, pictures) in enumerate(lines):
        place = (-0.12, TALL * row + SIDE / 2)
        axes.text(*place, literal(name), rotation=90, ha="center", va="center", fontsize=9, color=INK)
        for column, picture in enumerate(pictures):
            _draw(axes, picture, (column, TALL * row))
    if title:
        figure.suptitle(literal(title), fontsize=10, color=INK)
    return figure


def _pictures(example: Example) -> list[Picture]:
    """The three images of an example, each with its caption."""
    delta = example.adversarial - example.clean
    largest = float(np.abs(delta).max())
    visible = 0.5 + 0.5 * delta / largest if largest else np.full_like(delta, 0.5)
    before, after = example.predicted == example.label, example.predicted_adv == example.label
    return [
        Picture(example.clean, f"{example.predicted} {MARKS[before]}", not before),
        Picture(visible, f"up to {largest:.3g}" if largest else "none", signed=True),
        Picture(example.adversarial, f"{example.predicted_adv} {MARKS[after]}", not after),
    ]


def _draw(axes: Axes, picture: Picture, corner: tuple[float, float]) -> None:
    """One picture with its upper left corner there."""
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - only where plots are made

    pixels = picture.image
    image: Any = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels[:3], 0, -1)
    (x, y), colours = corner, "RdBu_r" if picture.signed else "gray"
    box = x, x + SIDE, y + SIDE, y
    drawn = axes.imshow(image, cmap=colours, vmin=0, vmax=1, interpolation="none", extent=box)
    drawn.set_in_layout(False)
    axes.add_patch(Rectangle(corner, SIDE, SIDE, fill=False, edgecolor=INK, alpha=0.3, linewidth=0.8))
    colour = COLOURS[1] if picture.wrong else INK
    axes.text(x + SIDE / 2, y - 0.04, literal(picture.caption), ha="center", va="bottom", fontsize=8, color=colour)
