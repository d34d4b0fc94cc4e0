"""The step along a decision boundary that ends nearest to the clean image, within a trust region and the box.

(Brendel et al. 2019, https://arxiv.org/abs/1907.01003, equation 2.) For each row, the minimiser of

    ||goal - step||_norm    with    <normal, step> = gap,    ||step||_2 <= radius,    low <= step <= high.

The multipliers of the two constraints are found one inside the other, for all rows at once. With that of the ball fixed
to some `share` of its range, the problem falls apart into entries, each of them known up to the plane's multiplier:

    l2     share * goal + slope                       clipped to the box; slope = multiplier * normal
    l1     goal, or slope where it is `reach` away    reach = share / (1 - share)
    linf   slope                                      clipped to within `reach` of the goal, too
    l0     goal where that is worth its squares       else slope

With the plane's multiplier, <normal, step> grows: it is found by Newton's steps between bounds. With the share, the
step's length grows from that of the least step that reaches the plane: false position on its square (the Illinois
rule: Dowell and Jarratt 1971, https://doi.org/10.1007/BF01934364). Where even that one is too long, it is shortened: no
step satisfies both. For l0, which is not convex, a dual solution is repaired to one that reaches the plane, and the
share is bisected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.balls import Norm
from algorithms.tensors import Images, PerRow, ones_where

Entries = Float[Tensor, "batch entries"]
Column = Float[Tensor, "batch 1"]
Box = tuple[Entries, Entries]  # lowest and highest
Entry = Callable[[Entries], tuple[Entries, Entries]]  # the step, and ones where it follows the slope

ROUNDS = 60  # of the search for the plane's multiplier at most; it ends by itself after five or so
CLOSE = 1e-10  # gap that may be left, per unit of the gradient's length
TRIALS = {"l2": 24, "l1": 24, "linf": 24, "l0": 10}  # of the share, at most
NARROW = 2.0**-24  # of the share, and by which share of its square the step's length may miss that of the ball
TINY = 1e-30  # keeps a division by zero finite where its result is not used


class Region(NamedTuple):
    """What a step must satisfy, a row an example, in double precision."""

    goal: Entries
    normal: Entries  # of length one, or zero
    gap: Column  # for that normal
    radius: Column
    low: Entries  # of the box, at most zero
    high: Entries  # at least zero


class Found(NamedTuple):
    """A step, and what is known of it."""

    step: Entries
    multiplier: Column  # of the plane
    met: Bool[Tensor, "batch 1"]  # it reaches the plane


def step(x: Images, x_adv: Images, gradient: Images, gap: PerRow, norm: Norm, radius: float) -> Images:
    """The step from `x_adv` that raises a value with this `gradient` by `gap`, and ends nearest to `x`.

    `radius` is its largest l2 length. Where no such step raises the value enough, it is one that raises it as far as
    it can.
    """
    normal = gradient.flatten(1).double()
    length = torch.linalg.vector_norm(normal, dim=1, keepdim=True).clamp_min(TINY)
    here = x_adv.flatten(1).double()
    region = Region(
        goal=x.flatten(1).double() - here,
        normal=normal / length,
        gap=gap.double().unsqueeze(1) / length,
        radius=torch.full_like(length, radius),
        low=-here,
        high=1 - here,
    )
    return nearest(region, norm).view_as(x).to(x.dtype)


class Bracket(NamedTuple):
    """Where the share lies, and by how much the step's squared length falls short of the ball's at both ends."""

    low: Column
    high: Column
    short: Column  # at `low`; positive
    beyond: Column  # at `high`; negative
    side: Column  # of the last trial: 1 where it became `low`, -1 where it became `high`


def nearest(region: Region, norm: Norm) -> Entries:
    """The solution of the problem above."""
    least = _on_plane(region, _between(region.low, region.high), torch.zeros_like(region.gap))
    corner = torch.where(region.gap * region.normal > 0, region.high, region.low) * (region.normal != 0)
    best = torch.where(least.met, least.step, corner)
    too_long = (region.radius / _length(best).clamp_min(TINY)).clamp(max=1)
    far = (region.goal - best).abs().amax(1, keepdim=True).clamp_min(TINY)
    room, multiplier = region.radius**2 - _length(best) ** 2, least.multiplier
    bracket = Bracket(torch.zeros_like(far), torch.ones_like(far), room, -room, torch.zeros_like(far))
    for _ in range(TRIALS[norm]):
        going = (bracket.short > NARROW * region.radius**2) & (bracket.high - bracket.low > NARROW)
        if not going.any():
            break
        share = _between_ends(bracket)
        tried = RULES[norm](region, share, far, multiplier)
        room = region.radius**2 - _length(tried.step) ** 2
        best = torch.where(tried.met & (room >= 0) & going, tried.step, best)
        bracket, multiplier = _narrowed(bracket, share, torch.where(tried.met, room, -torch.inf)), tried.multiplier
        if norm == "l0":  # its length jumps
            bracket = bracket._replace(beyond=-bracket.short)
    return best * too_long


def _between_ends(bracket: Bracket) -> Column:
    """Where the straight line between the ends says that the ball is."""
    part = bracket.short / (bracket.short - bracket.beyond)
    return bracket.low + (bracket.high - bracket.low) * part


def _narrowed(bracket: Bracket, share: Column, room: Column) -> Bracket:
    """The bracket after a trial; an end that stays for the second time counts half, one without length as the other."""
    fine, side = room >= 0, torch.where(room >= 0, 1.0, -1.0).to(room)
    stale = torch.where(side == bracket.side, 0.5, 1.0).to(room)
    short = torch.where(fine, room, bracket.short * stale)
    beyond = torch.where(fine, bracket.beyond * stale, torch.where(room.isinf(), -short, room))
    low, high = torch.where(fine, share, bracket.low), torch.where(fine, bracket.high, share)
    return Bracket(low, high, short, beyond, side)


def _l2(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    pulled = share * region.goal

    def entry(slope: Entries) -> tuple[Entries, Entries]:
        wanted = pulled + slope
        step = wanted.clamp(region.low, region.high)
        return step, ones_where(torch.eq, step, wanted)

    return _on_plane(region, entry, multiplier)


def _l1(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    reach = far * share / (1 - share).clamp_min(1e-3)  # far beyond where the ball makes no difference

    def entry(slope: Entries) -> tuple[Entries, Entries]:
        wanted = region.goal.clamp(slope - reach, slope + reach)
        step = wanted.clamp(region.low, region.high)
        inside = ones_where(torch.eq, step, wanted)
        return step, inside * ones_where(torch.ne, step, region.goal)

    return _on_plane(region, entry, multiplier)


def _linf(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    reach = far * (1 - share)
    low, high = torch.maximum(region.low, region.goal - reach), torch.minimum(region.high, region.goal + reach)
    return _on_plane(region, _between(low, high), multiplier, (low, high))


def _l0(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    worth = far**2 * share / (1 - share)

    def entry(slope: Entries) -> tuple[Entries, Entries]:
        moved = slope.clamp(region.low, region.high)
        saved = (region.goal - slope) ** 2 - (moved - slope) ** 2
        gone = ones_where(torch.gt, saved, worth)
        return torch.lerp(region.goal, moved, gone), gone * ones_where(torch.eq, moved, slope)

    dual = _on_plane(region, entry, multiplier, narrow=1e-2)  # it may jump over the plane
    back = ones_where(torch.eq, dual.step, region.goal)
    low, high = torch.lerp(region.low, region.goal, back), torch.lerp(region.high, region.goal, back)
    return _on_plane(region, _between(low, high), dual.multiplier, (low, high))._replace(multiplier=dual.multiplier)


RULES: dict[Norm, Callable[[Region, Column, Column, Column], Found]] = {"l2": _l2, "l1": _l1, "linf": _linf, "l0": _l0}


def _between(low: Entries, high: Entries) -> Entry:
    """The slope, clipped."""
    wide = ones_where(torch.lt, low, high)

    def entry(slope: Entries) -> tuple[Entries, Entries]:
        step = slope.clamp(low, high)
        return step, wide * ones_where(torch.eq, step, slope)

    return entry


def _on_plane(region: Region, entry: Entry, multiplier: Column, box: Box | None = None, narrow: float = CLOSE) -> Found:
    """The step that reaches the plane, among those that `entry` gives for the plane's multipliers.

    What they are worth grows with the multiplier, which is searched until its bounds are `narrow`, as a share of it.
    Rows whose box, the region's if none is given, does not reach the plane are not searched.
    """
    normal, gap = region.normal, region.gap
    square, (low, high) = normal**2, (normal * side for side in box or (region.low, region.high))
    least, most = torch.minimum(low, high).sum(1, keepdim=True), torch.maximum(low, high).sum(1, keepdim=True)
    close = CLOSE * (1 + gap.abs())
    idle = (gap < least - close) | (gap > most + close)
    below, above, before = (torch.full_like(gap, value) for value in (-torch.inf, torch.inf, torch.inf))
    for _ in range(ROUNDS):
        step, free = entry(multiplier * normal)
        short = gap - (normal * step).sum(1, keepdim=True)
        met = short.abs() <= close
        below, above = torch.where(short > 0, multiplier, below), torch.where(short < 0, multiplier, above)
        closed = above - below <= narrow * multiplier.abs()
        if (met | idle | closed).all():
            break
        bend = (square * free).sum(1, keepdim=True)
        newton = multiplier + short / bend.clamp_min(TINY)
        bounded = below.isfinite() & above.isfinite()
        halved = short.abs() < before / 2
        quick = (bend > 0) & (newton > below) & (newton < above) & (halved | ~bounded)
        outward = multiplier + short.sign() * (multiplier.abs() + short.abs())
        slow = torch.where(bounded, (below + above) / 2, outward)
        multiplier = torch.where(met | idle | closed, multiplier, torch.where(quick, newton, slow))
        before = short.abs()
    return Found(step, multiplier, met & ~idle)


def _length(step: Entries) -> Column:
    length: Tensor = torch.linalg.vector_norm(step, dim=1, keepdim=True)
    return length
