"""How far a network's decision boundaries are, and how fast its logits move (Matyasko 2021, chapter 3).

(https://doi.org/10.32657/10356/143316.) With g_j the input gradient of the gap f_y - f_j between the logits of the true
class y and of class j, the *margin sensitivity* is the largest ||g_j|| and the *geometric margin* (3.17) the smallest
|f_y - f_j| / ||g_j||: to first order, the distance to the nearest boundary, in the dual of that norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import nn

from algorithms import balls
from algorithms.gradients import predict
from algorithms.modes import frozen
from algorithms.tensors import Images, Labels, Logits, PerRow

Size = Literal["l2", "l1"]  # norm of an input gradient


class Slope(NamedTuple):
    """The gap between the true class and one rival, row by row."""

    rival: Labels  # never the true class
    gap: PerRow  # f_y - f_j
    gradient: Images  # of the gap for the input


def slopes(logits: Logits, x: Images, y: Labels) -> Iterator[Slope]:
    """The gap to each other class, one after the other, so that one gradient is kept at a time. A backward pass each.

    `logits` is what a network has made of `x`, which requires gradients. The graph stays.
    """
    own = logits.gather(1, y.unsqueeze(1))
    for distance in range(1, logits.shape[1]):
        rival = (y + distance) % logits.shape[1]
        gap = (own - logits.gather(1, rival.unsqueeze(1))).squeeze(1)
        (gradient,) = torch.autograd.grad(gap.sum(), x, retain_graph=True)
        yield Slope(rival, gap.detach(), gradient)


def steepest_rival(logits: Logits, x: Images, y: Labels, norm: Size) -> Labels:
    """The class whose gap to the true one has the largest gradient."""
    if logits.shape[1] == 2:
        return 1 - y
    largest, rival = torch.full_like(logits[:, 0], -1.0), torch.zeros_like(y)
    for slope in slopes(logits, x, y):
        size = balls.size(slope.gradient, norm)
        steeper = size > largest
        largest, rival = torch.where(steeper, size, largest), torch.where(steeper, slope.rival, rival)
    return rival


def sensitivity(model: nn.Module, x: Images, y: Labels, norm: Size = "l2") -> PerRow:
    """The margin sensitivity, differentiable for the model's parameters. The model's mode is the caller's.

    The rival is chosen first, without a graph of its gradient: so it costs a forward pass, as many backward passes as
    there are other classes (none for two), one more with a graph, and the derivative of that one alone.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = predict(model, x)
        rival = steepest_rival(logits, x, y, norm)
        gap = logits.gather(1, y.unsqueeze(1)) - logits.gather(1, rival.unsqueeze(1))
        (gradient,) = torch.autograd.grad(gap.sum(), x, create_graph=True)
    return balls.size(gradient, norm)


def nearest_boundary(logits: Logits, x: Images, y: Labels, norm: Literal["l2", "linf"]) -> tuple[PerRow, Labels]:
    """The distance to the nearest linearised boundary of class `y`, and the class behind it; `slopes` has the rest.

    Infinite where no gap depends on the input.
    """
    nearest, rival = torch.full_like(logits[:, 0], torch.inf).detach(), (y + 1) % logits.shape[1]
    for slope in slopes(logits, x, y):
        size = balls.dual(slope.gradient, norm)
        distance = torch.where(size > 0, slope.gap.abs() / size, torch.inf)
        nearer = distance < nearest
        nearest, rival = torch.where(nearer, distance, nearest), torch.where(nearer, slope.rival, rival)
    return nearest, rival


def geometric_margin(model: nn.Module, x: Images, y: Labels, norm: Literal["l2", "linf"] = "l2") -> PerRow:
    """The distance to the nearest linearised boundary of class `y` in `norm`, negative where another is predicted.

    A forward pass and a backward pass for each other class, in evaluation mode. Infinite where no gap depends on the
    input, and NaN for a model that has no gradient for it.
    """
    with frozen(model), torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = predict(model, x)
        if not logits.requires_grad:
            return torch.full_like(logits[:, 0], torch.nan)
        nearest, _ = nearest_boundary(logits, x, y, norm)
    return torch.where(logits.detach().argmax(1) == y, nearest, -nearest)
