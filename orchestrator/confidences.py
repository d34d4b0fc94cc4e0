"""Adversarial images of a trained model by confidence, to look at (Matyasko 2021, Figures 4.2 and 4.4).

(https://doi.org/10.32657/10356/143316.) Images at the decision boundary confuse anybody. Those to which a robust model
gives another class with confidence look like that class; for a model that is not robust, they look unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from algorithms.attacks.high_confidence import HighConfidence
from algorithms.gradients import predict
from algorithms.search import search
from algorithms.tensors import Images, Labels
from orchestrator.evaluations.targets import find, network_of
from orchestrator.folders import write_atomically
from orchestrator.image_plots import Picture, grid
from orchestrator.plots import png
from workers.cache import Split, open_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKED_AT = 64  # test images for each that is shown: so many, to find ones that the model gets right


def confidences(
    target: str | Path, levels: Sequence[float] = (0.5, 0.9, 0.99), count: int = 8, *, classes: bool = False
) -> Path:
    """Draws the first test images that the model gets right, and what they become at each confidence in another class.

    With `classes`: an image of each of the first `count` classes, and what it becomes as each other, at the last level.
    Returns the path of the picture, in the run's folder. Raises ValueError for levels outside (0, 1] and for a model
    that gets no image right.
    """
    if not levels or not all(0 < level <= 1 for level in levels):
        raise ValueError(f"levels: confidences above 0 and at most 1, not {', '.join(map(str, levels)) or 'none'}")
    found = find(target)
    split = open_split(found.recipe.dataset, "test")
    model = network_of(found, split)
    place = found.folder.path / ("classes.png" if classes else "confidences.png")
    figure = table(model, split, levels[-1], count) if classes else picture(model, split, levels, count)
    write_atomically(place, png(figure))
    return place


def right_ones(model: nn.Module, split: Split, count: int) -> tuple[Images, Labels]:
    """The first test images that the model gets right, out of so many that there are `count` of them or more."""
    first = np.arange(min(len(split), LOOKED_AT * count))
    x, y = split.images(first), split.labels(first)
    with torch.no_grad():
        right = predict(model, x).argmax(1) == y
    if not right.any():
        raise ValueError("the model gets none of the first test images right: there is nothing to change")
    return x[right], y[right]


def table(model: nn.Module, split: Split, level: float, count: int) -> Figure:
    """A line a class: its image in the place of its own class, in the others what it becomes as one of those."""
    x, y = right_ones(model, split, count)
    kinds = [kind for kind in range(min(count, len(split.classes))) if (y == kind).any()]
    own = torch.tensor(kinds).repeat_interleave(len(kinds))
    goals = torch.tensor(kinds).repeat(len(kinds))
    start = torch.stack([x[y == kind][0] for kind in own.tolist()])
    attack = HighConfidence(probability=level, targeted=True)
    reached = search(attack, model, start, goals, rng=torch.Generator().manual_seed(0)).x_adv
    shown = torch.where((own == goals).view(-1, 1, 1, 1), start, reached).split(len(kinds))
    return grid([_line(split.classes[kind], model, line, split) for kind, line in zip(kinds, shown, strict=True)])


def picture(model: nn.Module, split: Split, levels: Sequence[float], count: int) -> Figure:
    """The grid: a line of clean images and a line a level, above each image the model's class and its confidence."""
    x, y = (each[:count] for each in right_ones(model, split, count))
    reached = [_line(f"{100 * level:.4g} %", model, attacked(model, x, y, level), split) for level in levels]
    return grid([_line("clean", model, x, split), *reached])


def attacked(model: nn.Module, x: Images, y: Labels, level: float) -> Images:
    """The images as the nearest other class, at this confidence; where it is not reached, the last ones."""
    rng = torch.Generator().manual_seed(0)  # the attack draws nothing
    return search(HighConfidence(probability=level), model, x, y, rng=rng).x_adv


def _line(title: str, model: nn.Module, x: Images, split: Split) -> tuple[str, list[Picture]]:
    with torch.no_grad():
        sure, predicted = predict(model, x).softmax(1).max(1)
    names = [split.classes[int(c)] for c in predicted]
    said = zip(x.numpy(), names, sure, strict=True)
    return title, [Picture(image, f"{name} {100 * float(share):.0f} %") for image, name, share in said]
