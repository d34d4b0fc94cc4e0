"""Projection onto a Wasserstein ball by projected Sinkhorn iterations (Wong et al. 2019, algorithm 2).

(https://arxiv.org/abs/1902.07906.) The nearest image in l2 among those within the radius, with an entropy of the plan
as regulariser, by ascent on its dual, one block of variables after the other. All is kept as logarithms: the published
form overflows for dark pixels and large weights of the distance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from algorithms.tensors import Images, PerRow, per_row
from algorithms.transport import Moves, Routes, mass

DARKEST = 1e-30  # share of the mass that a black pixel counts as, so that it has a logarithm
NEWTON = 5  # steps for Lambert's function, which reach double precision
SETTLED = 1e-6, 1e-4  # a row is done when no more than this share of its mass, and of its worth of cost, changes


class Projection(NamedTuple):
    """A point of the ball, and a plan that comes near to making it."""

    x: Images  # not clipped; its mass is that of the plan only in the limit
    moves: Moves


class Dual(NamedTuple):
    """The dual variables: logarithms of the plan's factors of sources and targets, and the worth of cost."""

    source: Images
    target: Images
    worth: PerRow


def project(x: Images, y: Images, ways: Routes, eps: float, *, sharpness: float, sweeps: int) -> Projection:
    """The point nearest to `y` of the ball of radius `eps` around `x`.

    `sharpness` is the weight of the distance against the entropy (the paper's lambda), for images of mass 1.
    """
    total = per_row(mass(x).clamp_min(torch.finfo(x.dtype).tiny), x)
    start, goal = (x / total).clamp_min(DARKEST).log(), y / total
    dual = Dual(torch.zeros_like(x), torch.zeros_like(x), torch.ones_like(mass(x)))  # begins at `y` itself
    settled, now = torch.zeros_like(mass(x), dtype=torch.bool), goal
    for _ in range(sweeps):
        new = _sweep(dual, start, goal, ways, eps, sharpness)
        old, dual = dual, Dual(*(torch.where(per_row(settled, a), a, b) for a, b in zip(dual, new, strict=True)))
        before, now = now, goal - dual.target / sharpness
        still = (now - before).abs().flatten(1).sum(1) <= SETTLED[0]
        settled = settled | (still & ((dual.worth - old.worth).abs() <= SETTLED[1] * (1 + dual.worth)))
        if settled.all():
            break
    shares = torch.softmax(_logits(dual.target, dual.worth, ways), 2) * ways.moving
    return Projection(now * total, shares * x.flatten(2).unsqueeze(2))


def _sweep(dual: Dual, start: Images, goal: Images, ways: Routes, eps: float, sharpness: float) -> Dual:
    """Each block of the dual set to its best in turn; the worth by a Newton step, which cannot overshoot from below."""
    source = start - _logsum(_logits(dual.target, dual.worth, ways)).view_as(start)
    inflow = _logsum(_logits(source, dual.worth, ways)).view_as(start)  # routes are symmetric: who is reached can reach
    target = sharpness * goal - lambert(inflow + sharpness * goal + math.log(sharpness))
    plan = _logits(target, dual.worth, ways).add_(source.flatten(2).unsqueeze(2)).exp_()
    cost = ways.cost.flatten()
    price, curve = (plan.sum(1).flatten(1) @ torch.stack([cost, cost**2], 1)).unbind(1)
    worth = (dual.worth + (price - eps) / curve.clamp_min(torch.finfo(goal.dtype).tiny)).clamp_min(0)
    return Dual(source, target, worth)


def _logits(values: Images, worth: PerRow, ways: Routes) -> Moves:
    """Logarithms of the plan but for its other factor: those at the targets, less the worth of cost."""
    barred = ways.cost.masked_fill(~(ways.moving | ways.staying), torch.inf)
    worth = per_row(worth.clamp_min(torch.finfo(values.dtype).tiny), values)  # 0 times infinity is no number
    return torch.addcmul(ways.to_targets(values), worth, barred, value=-1)


def _logsum(logits: Moves) -> Tensor:
    """The logarithm of the sum over targets, in the logits' own memory: half the time of torch.logsumexp."""
    top = logits.amax(2, keepdim=True)
    return logits.sub_(top).exp_().sum(2, keepdim=True).log_().add_(top)


def lambert(t: Tensor) -> Tensor:
    """Lambert's W of exp(t), the u with u + log(u) = t, without the exponential (Newton's method on log u)."""
    v = torch.where(t > 1, t.clamp_min(1).log(), t)
    for _ in range(NEWTON):
        u = v.exp()
        v = v - (u + v - t) / (u + 1)
    return v.exp()
