"""Norm balls around zero: size, projection, steepest step and a random point, for each row of a batch.

Every radius is one number or one a row. The `linf`, `l2` and `l1` norms are of the whole image, and `l0` counts the
entries that are not zero; `dual` is what bounds a linear function over the ball (Hölder's inequality).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from algorithms.streams import Streams
from algorithms.tensors import Images, PerRow, ones_where, per_row

Norm = Literal["linf", "l2", "l1", "l0"]
Geometry = Literal["linf", "l2", "l1", "l0", "wasserstein"]  # what a radius is of; the last: `algorithms.transport`
Radius = float | Tensor  # one for all rows, or (batch,)

ORDER: dict[Norm, float] = {"linf": torch.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


def radii(eps: Radius, like: Tensor) -> Tensor:
    """`eps` as a tensor that broadcasts over the rows of `like`; a number is filled in where `like` lies, not sent."""
    if isinstance(eps, Tensor):
        radius = eps.to(like)
        return per_row(radius, like) if radius.dim() else radius
    return torch.full((), eps, dtype=like.dtype, device=like.device)


def size(delta: Images, norm: Norm) -> PerRow:
    """The norm of each row."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)  # ten times as fast as torch's norm, and l1 five times
    if norm == "l1":
        return flat.abs().sum(1)
    if norm == "l0":
        return ones_where(torch.ne, flat.detach(), 0).sum(1)
    sizes: Tensor = torch.linalg.vector_norm(flat, ORDER[norm], dim=1)
    return sizes


def dual(delta: Images, norm: Norm) -> PerRow:
    """The dual norm of each row: the largest inner product with a point of the unit ball of `norm`."""
    return size(delta, DUAL[norm])


def project(delta: Images, norm: Norm, eps: Radius) -> Images:
    """The nearest point (in l2) of the ball of radius `eps`."""
    radius = radii(eps, delta)
    if norm == "linf":
        return torch.minimum(torch.maximum(delta, -radius), radius)
    if norm == "l2":
        return delta * (radius / per_row(size(delta, "l2"), delta).clamp_min(1e-30)).clamp(max=1)
    if norm == "l1":
        return _project_l1(delta, radius)
    return _keep_largest(delta, radius)


def steepest(gradient: Images, norm: Norm) -> Images:
    """The step of size one (in `norm`) that raises a linear function most; zero where the gradient is zero.

    In l1 all of it goes into the largest entry; equal entries share it.
    """
    if norm == "linf":
        return gradient.sign()
    top = per_row(size(gradient, "linf"), gradient)
    if norm == "l2":  # the largest entry becomes one first: squares of a saturated loss's tiny gradient would vanish
        scaled = gradient / top.clamp_min(torch.finfo(gradient.dtype).tiny)
        return scaled / per_row(size(scaled, "l2"), scaled).clamp_min(1)
    largest = gradient.abs() == top
    step = gradient.sign() * largest
    return step / per_row(size(step, "l1"), step).clamp_min(1)


def sparse_step(gradient: Images, kept: Radius) -> Images:
    """SLIDE's l1 step of size one: equal steps along the signs of the largest share `kept` of the entries.

    (Tramèr and Boneh 2019, https://arxiv.org/abs/1904.13000, section 3.2.) At least one entry is kept; the share is one
    number or one a row.
    """
    flat = gradient.flatten(1)
    size = flat.abs()
    threshold = _smallest_kept(size, kept)
    step = flat.sign() * ones_where(torch.ge, size, threshold)
    return (step / step.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)


def _smallest_kept(size: Tensor, kept: Radius) -> Tensor:
    """The smallest of the largest share `kept` of a row's entries, (batch, 1). Of one share no device is asked."""
    entries = size.shape[1]
    if not isinstance(kept, Tensor):
        return size.topk(min(max(round(kept * entries), 1), entries), dim=1).values[:, -1:]
    counts = (kept * entries).round().long().clamp(1, entries)
    largest = size.topk(int(counts.max()), dim=1).values
    return largest.gather(1, counts.unsqueeze(1) - 1)


def random_point(x: Images, norm: Norm, eps: Radius, streams: Streams, draw: int = 0) -> Images:
    """A point uniform in the ball of radius `eps`, shaped like `x`; each row from its own stream."""
    shape, radius = tuple(x.shape[1:]), radii(eps, x)
    if norm == "linf":
        return (2 * streams.uniform(shape, draw, dtype=x.dtype) - 1) * radius
    count = x[0].numel()
    if norm == "l2":
        inside = streams.fork(1).uniform((1,), draw, dtype=x.dtype)[:, 0] ** (1 / count)
        return steepest(streams.normal(shape, draw, dtype=x.dtype), "l2") * per_row(inside, x) * radius
    if norm == "l1":  # the first `count` of count + 1 exponentials over their sum are uniform in the simplex's cone
        spread = -torch.log1p(-streams.uniform((count + 1,), draw, dtype=x.dtype))
        inside = (spread[:, :-1] / spread.sum(1, keepdim=True)).view_as(x)
        return inside * streams.fork(1).signs(shape, draw, dtype=x.dtype) * radius
    raise ValueError(f"no random point in an {norm} ball: choose linf, l2 or l1")


def _project_l1(delta: Tensor, radius: Tensor) -> Tensor:
    """Projection on the l1 ball: sign(delta) * (|delta| - shift)_+ (Michelot 1986, https://doi.org/10.1007/BF00938486).

    The shift that the entries above it call for rises from round to round, and entries drop out, until none does: ten
    rounds or so, much faster than sorting.
    """
    size, bound = delta.abs().flatten(1), radius.reshape(-1, 1)
    total, above = size.sum(1, keepdim=True), torch.empty_like(size)
    shift = ((total - bound) / size.shape[1]).clamp_min(0)
    for _ in range(size.shape[1]):
        torch.gt(size, shift, out=above)  # a mask of ones and zeros: sums with it are quicker than with booleans
        count = above.sum(1, keepdim=True)
        following = torch.maximum(shift, ((size * above).sum(1, keepdim=True) - bound) / count.clamp_min(1))
        if torch.equal(following, shift):
            break
        shift = following
    shrunk = delta.sign() * (size - shift).clamp_min(0).view_as(delta)
    return torch.where(per_row(total <= bound, delta), delta, shrunk)


def _keep_largest(delta: Tensor, count: Tensor) -> Tensor:
    """Projection on the l0 ball: the `count` largest entries stay, none for NaN; of equal ones, the first.

    Only as many entries as stay are sorted: for few of them that is much faster than to sort all.
    """
    flat = delta.flatten(1)
    size, whole = flat.abs(), count.nan_to_num().clamp(0, flat.shape[1]).ceil().long()
    counts = whole.reshape(-1, 1).expand(len(flat), 1)
    largest = size.topk(max(1, int(counts.max())), dim=1).values
    last = largest.gather(1, (counts - 1).clamp_min(0))  # of those that stay, the smallest
    above, equal = (torch.empty_like(size, dtype=torch.float32) for _ in range(2))
    torch.gt(size, last, out=above), torch.eq(size, last, out=equal)
    first = ones_where(torch.le, equal.cumsum(1), counts - above.sum(1, keepdim=True))
    return (flat * (above + equal * first).to(flat.dtype)).view_as(delta)
