"""Nearest points of a ball or a hyperplane that are images too: perturbations that keep every pixel in [0, 1].

To project onto the ball and then to clip is not the nearest point: it wastes what pixels at the box's edge have of the
budget. Here both are met at once. (Croce and Hein 2021, https://arxiv.org/abs/2103.01208, proposition 2.1, for the l1
ball; Croce and Hein 2020, https://arxiv.org/abs/1907.02044, section 2.2, for the hyperplane.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms import balls
from algorithms.balls import Norm
from algorithms.tensors import Images, PerRow, ones_where, per_row

_TINY = 1e-30  # keeps a division by zero finite where its result is not used
_ROUNDS = 40  # of Newton's method at most; it ends by itself after five or so


def room(x: Images, direction: Images) -> Images:
    """How far each pixel can go in its `direction`, of which only the sign counts."""
    return torch.lerp(x, 1 - x, ones_where(torch.gt, direction, 0))


def project(x: Images, delta: Images, norm: Norm, eps: float) -> Images:
    """The perturbation nearest to `delta` (in l2) that lies in the ball of radius `eps` and leaves `x` in the box."""
    if norm == "l1":
        return _project_l1(x, delta, eps)
    if norm == "l2":
        return _project_l2(x, delta, eps)
    if norm == "linf":
        return (x + balls.project(delta, norm, eps)).clamp(0, 1) - x
    raise ValueError(f"no projection onto an {norm} ball and the box: choose linf, l2 or l1")


def to_plane(x: Images, gap: PerRow, normal: Images, norm: Norm) -> Images:
    """The smallest step, in linf, l2 or l1, from `x` to the plane gap + <normal, step> = 0 that stays in the box.

    Where the box does not reach the plane it is the step to the corner of the box that is nearest to the plane.
    """
    direction = -per_row(gap, x).sign() * normal.sign()
    slope, most = normal.abs().flatten(1), room(x, direction).flatten(1) * (direction.flatten(1) != 0)
    steepest = slope.amax(1, keepdim=True).clamp_min(_TINY)
    slope, amount = (
        slope / steepest,
        (gap.abs().unsqueeze(1) / steepest).clamp(max=1e10),
    )  # so that no square underflows
    if norm == "l1":
        length = _greedily(slope, most, amount)
    elif norm == "l2":
        reach = most / slope.clamp_min(_TINY)
        length = torch.minimum(slope * _level(reach, slope**2, amount), most)
    else:
        length = torch.minimum(_level(most, slope, amount), most)
    return direction * length.view_as(x)


def _project_l1(x: Images, delta: Images, eps: float) -> Images:
    """sign(delta) * clip(|delta| - shift, 0, room), whose norm is piecewise linear in the shift.

    The shift is found by Newton's steps, or by halving where they leave the bracket or bring too little. A row that has
    found its own waits for the others.
    """
    size, most = delta.abs().flatten(1), room(x, delta).flatten(1)
    above, below = torch.empty_like(size), torch.empty_like(size)  # of ones and zeros, as `ones_where` gives them
    low, high = torch.zeros_like(size[:, :1]), size.amax(1, keepdim=True)
    shift, before, close = low, low + torch.inf, 32 * torch.finfo(size.dtype).eps * eps
    for _ in range(_ROUNDS):
        left = size - shift
        kept = torch.minimum(left.clamp_min(0), most)
        over = kept.sum(1, keepdim=True) - eps
        low, high = torch.where(over > 0, shift, low), torch.where(over > 0, high, shift)
        seeking = (over.abs() > close) & (high > low)
        if not seeking.any():
            break
        free = torch.gt(left, 0, out=above) * torch.lt(left, most, out=below)
        following = shift + over / free.sum(1, keepdim=True).clamp_min(1)
        quick = (following > low) & (following < high) & (over.abs() < before / 2)
        shift = torch.where(seeking, torch.where(quick, following, (low + high) / 2), shift)
        before = over.abs()
    kept = kept * (eps / kept.sum(1, keepdim=True).clamp_min(_TINY)).clamp(max=1)  # what rounding left over
    return torch.copysign(kept.view_as(delta), delta)


def _project_l2(x: Images, delta: Images, eps: float) -> Images:
    """sign(delta) * min(share * |delta|, room); the square of its norm is piecewise linear in share^2."""
    size, most = delta.abs().flatten(1), room(x, delta).flatten(1)
    largest = size.amax(1, keepdim=True).clamp_min(_TINY)
    weight, amount = (size / largest) ** 2, torch.full_like(largest, eps**2)
    level = _level(most**2 / weight.clamp_min(_TINY), weight, amount)
    length = torch.minimum(size * (level.sqrt() / largest).clamp(max=1), most)
    return torch.copysign(length.view_as(delta), delta)


def _level(reach: Tensor, weight: Tensor, amount: Tensor) -> Tensor:
    """The t with sum_i weight_i * min(t, reach_i) = amount, (batch, 1), or a very large one if there is none.

    The sum is concave in t, so Newton's steps come from below and never go too far.
    """
    worth, total, mask = weight * reach, weight.sum(1, keepdim=True), torch.empty_like(weight)
    level = amount / total.clamp_min(_TINY)
    for _ in range(_ROUNDS):
        full = (worth * torch.le(reach, level, out=mask)).sum(1, keepdim=True)
        left = (weight * torch.gt(reach, level, out=mask)).sum(1, keepdim=True)
        following = torch.maximum(level, (amount - full) / left.clamp_min(_TINY))
        if torch.equal(following, level):
            break
        level = following
    return level.clamp(max=1 / _TINY)


def _greedily(slope: Tensor, most: Tensor, amount: Tensor) -> Tensor:
    """Lengths of the entries, the steepest filled first, until they are worth `amount`."""
    order = slope.argsort(dim=1, descending=True, stable=True)
    worth = (slope * most).gather(1, order)
    before = worth.cumsum(1) - worth
    length = ((amount - before) / slope.gather(1, order).clamp_min(_TINY)).clamp_min(0)
    return torch.zeros_like(slope).scatter(1, order, torch.minimum(length, most.gather(1, order)))
