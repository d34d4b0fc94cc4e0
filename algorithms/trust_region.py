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
step's length grows from that of the least step that reaches the plane: bisection. Where even that one is too long, it
is shortened: no step satisfies both. For l0, which is not convex, a dual solution is repaired to one that reaches the
plane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.balls import Norm
from algorithms.tensors import Images, PerRow

Entries = Float[Tensor, "batch entries"]
Column = Float[Tensor, "batch 1"]
Box = tuple[Entries, Entries]  # lowest and highest
Entry = Callable[[Entries], tuple[Entries, Bool[Tensor, "batch entries"]]]  # the step, and where it follows the slope

ROUNDS = 60  # of the search for the plane's multiplier at most; it ends by itself after five or so
CLOSE = 1e-10  # gap that may be left, per unit of the gradient's length
HALVINGS = {"l2": 24, "l1": 24, "linf": 24, "l0": 10}  # of the share
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


def nearest(region: Region, norm: Norm) -> Entries:
    """The solution of the problem above."""
    least = _on_plane(region, _between(region.low, region.high), torch.zeros_like(region.gap))
    corner = torch.where(region.gap * region.normal > 0, region.high, region.low) * (region.normal != 0)
    best = torch.where(least.met, least.step, corner)
    too_long = (region.radius / _length(best).clamp_min(TINY)).clamp(max=1)
    far = (region.goal - best).abs().amax(1, keepdim=True).clamp_min(TINY)
    low, high, multiplier = torch.zeros_like(far), torch.ones_like(far), least.multiplier
    for _ in range(HALVINGS[norm]):
        share = (low + high) / 2
        tried = RULES[norm](region, share, far, multiplier)
        fine = tried.met & (_length(tried.step) <= region.radius)
        best, multiplier = torch.where(fine, tried.step, best), tried.multiplier
        low, high = torch.where(fine, share, low), torch.where(fine, high, share)
    return best * too_long


def _l2(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    def entry(slope: Entries) -> tuple[Entries, Tensor]:
        wanted = share * region.goal + slope
        step = wanted.clamp(region.low, region.high)
        return step, step == wanted

    return _on_plane(region, entry, multiplier)


def _l1(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    reach = far * share / (1 - share).clamp_min(1e-3)  # far beyond where the ball makes no difference

    def entry(slope: Entries) -> tuple[Entries, Tensor]:
        wanted = region.goal.clamp(slope - reach, slope + reach)
        step = wanted.clamp(region.low, region.high)
        return step, (step == wanted) & (step != region.goal)

    return _on_plane(region, entry, multiplier)


def _linf(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    reach = far * (1 - share)
    low, high = torch.maximum(region.low, region.goal - reach), torch.minimum(region.high, region.goal + reach)
    return _on_plane(region, _between(low, high), multiplier, (low, high))


def _l0(region: Region, share: Column, far: Column, multiplier: Column) -> Found:
    worth = far**2 * share / (1 - share)

    def entry(slope: Entries) -> tuple[Entries, Tensor]:
        moved = slope.clamp(region.low, region.high)
        back = (region.goal - slope) ** 2 - (moved - slope) ** 2 <= worth
        return torch.where(back, region.goal, moved), (moved == slope) & ~back

    dual = _on_plane(region, entry, multiplier, narrow=1e-2)  # it may jump over the plane
    back = dual.step == region.goal
    low, high = torch.where(back, region.goal, region.low), torch.where(back, region.goal, region.high)
    return _on_plane(region, _between(low, high), dual.multiplier, (low, high))._replace(multiplier=dual.multiplier)


RULES: dict[Norm, Callable[[Region, Column, Column, Column], Found]] = {"l2": _l2, "l1": _l1, "linf": _linf, "l0": _l0}


def _between(low: Entries, high: Entries) -> Entry:
    """The slope, clipped."""

    def entry(slope: Entries) -> tuple[Entries, Tensor]:
        step = slope.clamp(low, high)
        return step, (step == slope) & (low < high)

    return entry


def _on_plane(region: Region, entry: Entry, multiplier: Column, box: Box | None = None, narrow: float = CLOSE) -> Found:
    """The step that reaches the plane, among those that `entry` gives for the plane's multipliers.

    What they are worth grows with the multiplier, which is searched until its bounds are `narrow`, as a share of it.
    Rows whose box, the region's if none is given, does not reach the plane are not searched.
    """
    normal, gap = region.normal, region.gap
    low, high = (normal * side for side in box or (region.low, region.high))
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
        bend = (normal**2 * free).sum(1, keepdim=True)
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
