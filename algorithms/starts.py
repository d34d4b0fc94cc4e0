"""Where an attack begins that walks along the decision boundary: at an image of a wrong class, however far away.

(Brendel et al. 2018, https://arxiv.org/abs/1712.04248, begins with uniform noise.) A robust model may call all noise of
one kind the same class, so several kinds are tried: grains of several sizes, grey and black-and-white. With gradients
there is a way that hardly ever fails and ends nearer: up the loss, by ever longer steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from algorithms import balls, losses
from algorithms.search import Problem
from algorithms.streams import Streams
from algorithms.tensors import Images, Mask, PerRow, per_row

GRAINS = (1, 2, 4, 8)  # sizes of the noise's grains, in pixels
CLIMBS, FIRST_CLIMB, LONGER = 12, 0.25, 1.5  # steps up the loss, the first one's l2 length, and how it grows
HALVINGS = 12  # of the line to the boundary: to 1/4096 of its length


class Found(NamedTuple):
    """The nearest point of a wrong class so far."""

    point: Images  # the clean image while there is none
    distance: PerRow  # in l2, infinite while there is none


def at_the_boundary(problem: Problem, draws: int, *, climbing: bool = False) -> tuple[Images, Mask]:
    """A point of a wrong class just across the boundary, and the rows that have one.

    It lies between the clean image and the nearest of `draws` noise images and, if `climbing`, of the points of a
    climb, that have a wrong class. Nearest in l2 for every norm: to count entries would choose the noise that happens
    to share most with the image. One forward pass for the clean image, each noise image and each of twelve halvings,
    and a forward and a backward pass for each of twelve steps up. All points are judged; a row that is misclassified
    from the start has its clean image.
    """
    x, targeted = problem.x, problem.ledger.attack.targeted
    fooled = losses.fooled(problem.predict(x), problem.y, targeted=targeted)
    found = Found(x, torch.where(fooled, 0, torch.full_like(x[:, 0, 0, 0], torch.inf)))
    for draw in range(draws):
        image = noise(x, problem.streams, draw)
        found = _nearer(problem, found, image, losses.fooled(problem.predict(image), problem.y, targeted=targeted))
    if climbing:
        found = _climbed(problem, found)
    return _halved(problem, found.point), found.distance.isfinite()


def _climbed(problem: Problem, found: Found) -> Found:
    """The nearest point after steps up the margin, the longer the later, until the class is wrong."""
    point, length = problem.x, FIRST_CLIMB
    for _ in range(CLIMBS):
        at = problem.gradient(point, "margin")
        found = _nearer(problem, found, point, at.value > 0)
        higher = (point + length * balls.steepest(at.gradient, "l2")).clamp(0, 1)
        point, length = torch.where(per_row(at.value > 0, point), point, higher), length * LONGER
    return found


def _nearer(problem: Problem, found: Found, point: Images, fooled: Mask) -> Found:
    distance = balls.size(point - problem.x, "l2")
    better = fooled & (distance < found.distance)
    return Found(torch.where(per_row(better, point), point, found.point), torch.where(better, distance, found.distance))


def noise(x: Images, streams: Streams, draw: int) -> Images:
    """A random image for each row: the grain's size, and whether it is black and white, change with the draw."""
    grain, grey = GRAINS[draw % len(GRAINS)], draw // len(GRAINS) % 2 == 0
    channels, height, width = x.shape[1:]
    shape = (channels, -(-height // grain), -(-width // grain))
    drawn = streams.uniform(shape, draw, dtype=x.dtype)
    if not grey:
        drawn = (drawn < streams.fork(1).uniform((1, 1, 1), draw, dtype=x.dtype)).to(x.dtype)  # some white, or much
    return drawn.repeat_interleave(grain, 2).repeat_interleave(grain, 3)[:, :, :height, :width]


def _halved(problem: Problem, far: Images) -> Images:
    """The point between the clean image and `far` where the class changes, on the far side."""
    x = problem.x
    low, high = torch.zeros_like(x[:, 0, 0, 0]), torch.ones_like(x[:, 0, 0, 0])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        point = (x + per_row(middle, x) * (far - x)).clamp(0, 1)
        fooled = losses.fooled(problem.predict(point), problem.y, targeted=problem.ledger.attack.targeted)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return (x + per_row(high, x) * (far - x)).clamp(0, 1)
