"""Proximal operators of the norms: the point that trades its norm against its distance from `x`.

Each returns, a row, the exact minimiser u of

    strength * h(u) + 1/2 * sum_i weight_i * (u_i - x_i)^2      with low <= u <= high,

where h is what the operator is named after (Parikh and Boyd 2014, https://doi.org/10.1561/2400000003). `strength` is
one number or one a row. The weights, 1 if left out, are those of an adaptive step: in the metric of Adam's
denominators this is the step of Melchior et al. 2019 (https://arxiv.org/abs/1910.10094), solved at once instead of by
inner iterations. The box, none if left out, must hold zero. Numbers in brackets are equations of Matyasko 2021,
chapter 5.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from algorithms.balls import Radius, radii
from algorithms.tensors import Images, ones_where, per_row

Box = tuple[Images, Images]  # lowest and highest perturbation of each entry
PixelRule = Literal["l2", "max"]
"""What decides whether a pixel stays: `l2`, its length (the exact operator), or `max`, its largest channel (5.16)."""

_TINY = 1e-38  # keeps a division by zero finite where its result is not used


def linf(x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None) -> Images:
    """The largest absolute entry (5.11): x clipped to [-t, t], exactly zero where ||x||_1 <= `strength`.

    By Moreau's decomposition what is cut off weighs `strength`, counted over the entries that the box lets reach t. The
    sum is linear in t between the points where an entry starts to count, so t is found by sorting those.
    """
    size, reach = x.abs().flatten(1), _reach(x, box).flatten(1)
    mass = torch.ones_like(size) if weight is None else weight.flatten(1)
    corners, order = torch.minimum(size, reach).sort(dim=1, descending=True)
    mass = mass.gather(1, order)
    area, slope = (mass * size.gather(1, order)).cumsum(1), mass.cumsum(1)
    following = torch.cat([corners[:, 1:], torch.zeros_like(corners[:, :1])], 1)
    cut = radii(strength, x).reshape(-1, 1)
    piece = (area - slope * following <= cut).sum(1, keepdim=True).clamp(max=size.shape[1] - 1)
    level = (area.gather(1, piece) - cut) / slope.gather(1, piece).clamp_min(_TINY)
    level = torch.minimum(level, corners.gather(1, piece)).clamp_min(0)  # at a corner the sum may jump over `strength`
    level = per_row(torch.where(area[:, -1:] <= cut, 0, level), x)
    return _clip(torch.minimum(torch.maximum(x, -level), level), box)


def l2(x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None) -> Images:
    """The Euclidean norm (5.12): x shrunk, to exactly zero where ||x||_2 <= `strength`.

    With weights or a box the norm n of u solves n = ||u(n)||, u(n) = clip(weight x n / (weight n + strength)). The
    quotient of the two sides is nearly linear in n: Newton's steps, kept between bounds, find it. A row that has found
    its own waits for the others.
    """
    shift = radii(strength, x)
    mass = torch.ones_like(x) if weight is None else weight
    pull = mass * x * ones_where(torch.gt, _reach(x, box), 0)
    nonzero = _length(pull, x) > shift
    if weight is None and box is None:
        return torch.where(nonzero, x * (1 - shift / _length(x, x).clamp_min(_TINY)), 0)
    high = _length(_clip(x, box), x)
    low, level = torch.zeros_like(high), high
    free, close = torch.empty_like(x), 4 * torch.finfo(x.dtype).eps
    for _ in range(20):
        scale = (mass * level + shift).clamp_min(_TINY)
        spread = pull / scale
        grown = spread * level
        u = _clip(grown, box)
        length = _length(u, x).clamp_min(_TINY)
        short = length < level
        low, high = torch.where(short, low, level), torch.where(short, level, high)
        seeking = ((length - level).abs() > close * level) & nonzero
        if not seeking.any():
            break
        growth = torch.eq(u, grown, out=free) * (u * spread * shift / scale)
        bend = per_row(growth.flatten(1).sum(1), x) / length**2  # of log ||u(n)||
        step = (level - length) / (1 - level * bend).clamp_min(_TINY)
        following = torch.where((level - step > low) & (level - step < high), level - step, (low + high) / 2)
        level = torch.where(seeking, following, level)
    return nonzero * _clip(pull * level / (mass * level + shift).clamp_min(_TINY), box)


def l1(x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None) -> Images:
    """The sum of absolute entries (5.13, where a |x| is missing): soft thresholding, sign(x) (|x| - strength)_+."""
    threshold = _per_entry(strength, x, weight)
    return _clip(x - torch.minimum(torch.maximum(x, -threshold), threshold), box)


def l0(x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None) -> Images:
    """The number of entries that are not zero (5.14): hard thresholding at |x| > sqrt(2 strength).

    In a box an entry stays, clipped, if going there from zero saves more than `strength`.
    """
    kept = _clip(x, box)
    return torch.where(_saved(x, kept, None) > _per_entry(strength, x, weight), kept, 0)


def pixels(
    x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None, rule: PixelRule = "l2"
) -> Images:
    """The number of pixels with a channel that is not zero: a pixel's channels stay or go together.

    The rule of (5.16) looks at the largest channel; that is not the proximal operator and sets more pixels to zero.
    """
    kept = _clip(x, box)
    saved = _saved(x, kept, weight)
    gain = saved.sum(1, keepdim=True) if rule == "l2" else saved.amax(1, keepdim=True)
    return torch.where(gain > radii(strength, x), kept, 0)


def two_thirds(x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None) -> Images:
    """The sum of |u|^(2/3), which is near the count of entries but pulls small ones towards zero.

    Closed form of Cao et al. 2013 (https://doi.org/10.1016/j.jvcir.2012.10.006); it is zero up to |x| = 2 (2
    strength / 3)^(3/4), above where the formula's roots become real. An entry whose minimiser the box cuts off goes
    to the bound or to zero, whichever is lower.
    """
    ratio = _per_entry(strength, x, weight)
    size, cube = x.abs(), ratio**3
    half = size**2 / 16
    square = half**2
    root = (half + (square - cube * (8 / 729)).clamp_min(0).sqrt()).clamp_min(_TINY) ** (1 / 3)
    width = (2 * (root + (2 * ratio / 9) / root)).sqrt()
    u = x.sign() * (width + (2 * size / width - width**2).clamp_min(0).sqrt()) ** 3 / 8
    u = torch.where(square > cube / 54, u, 0)  # the fourth powers of |x| and of the bound, over 256
    if box is None:
        return u
    cut = _clip(u, box)
    whole = ones_where(torch.eq, cut, u)
    saves = ones_where(torch.gt, _saved(x, cut, None).clamp_min(0) ** 3, cube * cut**2)
    return cut * torch.maximum(whole, saves)


def pixels_two_thirds(x: Images, strength: Radius, *, weight: Images | None = None, box: Box | None = None) -> Images:
    """The sum over pixels of ||u_pixel||_2^(2/3): a pixel's channels shrink, or go, together.

    A weight must be the same for all channels of a pixel. The box clips what is left, which is then not exact.
    """
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    shrunk = two_thirds(length, strength, weight=None if weight is None else weight[:, :1])
    return _clip(x * (shrunk / length.clamp_min(_TINY)), box)


def _per_entry(strength: Radius, x: Images, weight: Images | None) -> Tensor:
    """The strength of every entry, for functions that are sums over entries: there a weight only divides it."""
    rows = radii(strength, x)
    return rows if weight is None else rows / weight


def _reach(x: Images, box: Box | None) -> Images:
    """How far from zero the box lets each entry go on the side of `x`."""
    if box is None:
        return torch.full_like(x, torch.inf)
    return torch.lerp(-box[0], box[1], ones_where(torch.gt, x, 0))


def _clip(x: Images, box: Box | None) -> Images:
    return x if box is None else torch.minimum(torch.maximum(x, box[0]), box[1])


def _length(x: Images, like: Images) -> Tensor:
    return per_row(torch.linalg.vector_norm(x.flatten(1), dim=1), like)


def _saved(x: Images, u: Images, weight: Images | None) -> Images:
    """By how much `u` lies nearer to `x` than zero does, in halves of squares."""
    saved = u * (x - u / 2)
    return saved if weight is None else saved * weight
