"""Where an attack begins that walks along the decision boundary: at an image of a wrong class, however far away.

(Brendel et al. 2018, https://arxiv.org/abs/1712.04248, begins with uniform noise.) A robust model may call all noise of
one kind the same class, so several kinds are tried: grains of several sizes, grey and black-and-white.
"""

from __future__ import annotations

import torch

from algorithms import balls, losses
from algorithms.search import Problem
from algorithms.streams import Streams
from algorithms.tensors import Images, Mask, per_row

GRAINS = (1, 2, 4, 8)  # sizes of the noise's grains, in pixels
HALVINGS = 12  # of the line to the boundary: to 1/4096 of its length


def at_the_boundary(problem: Problem, draws: int) -> tuple[Images, Mask]:
    """A point of a wrong class just across the boundary, and the rows that have one.

    It lies between the clean image and the nearest, in the attack's norm, of `draws` noise images that have a wrong
    class. One forward pass for the clean image, each noise image and each of twelve halvings. All points are judged; a
    row that is misclassified from the start has its clean image.
    """
    x, targeted = problem.x, problem.ledger.attack.targeted
    found = losses.fooled(problem.predict(x), problem.y, targeted=targeted)
    far, distance = x, torch.where(found, 0, torch.full_like(x[:, 0, 0, 0], torch.inf))
    for draw in range(draws):
        image = noise(x, problem.streams, draw)
        size = balls.size(image - x, problem.ledger.attack.norm)
        nearer = losses.fooled(problem.predict(image), problem.y, targeted=targeted) & (size < distance)
        far, distance = torch.where(per_row(nearer, x), image, far), torch.where(nearer, size, distance)
    return _halved(problem, far), distance.isfinite()


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
