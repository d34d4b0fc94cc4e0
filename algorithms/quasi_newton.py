"""Limited-memory BFGS for many small problems at once: each row has its own objective, and its own memory of it.

(Liu and Nocedal 1989, https://doi.org/10.1007/BF01589116, algorithm 2.1; for the box, the two-metric projection of
Bertsekas 1982, https://doi.org/10.1137/0320018.) Entries that the box holds and the gradient pushes out are left alone:
the direction is that of the other entries, and of the memory as they see it. A step is then x(t) = clip(x + t d).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.tensors import Images, Mask, PerRow, ones_where, per_row

Pairs = Float[Tensor, "batch kept channels height width"]

LEAST = 1e-10  # curvature below which a pair says nothing, as a share of the square of the gradient's change


class Memory(NamedTuple):
    """The last steps, newest at the end; places not yet used are zero."""

    moves: Pairs  # how far each went
    turns: Pairs  # by how much the gradient changed


def empty(x: Images, kept: int) -> Memory:
    """Room for `kept` steps a row, and none of them made."""
    none = x.new_zeros(len(x), kept, *x.shape[1:])
    return Memory(none, none)


def remember(memory: Memory, move: Images, turn: Images, rows: Mask) -> Memory:
    """The memory with one more step of `rows`, where its curvature is positive; the oldest goes."""
    said = rows & (inner(move, turn) > LEAST * inner(turn, turn))
    return Memory(*(_push(pairs, last, said) for pairs, last in zip(memory, (move, turn), strict=True)))


def free(x: Images, gradient: Images) -> Images:
    """One for entries that a descent may move, zero for those at 0 or 1 which it would push out of the box."""
    low, high = ones_where(torch.le, x, 0), ones_where(torch.ge, x, 1)
    up, down = ones_where(torch.lt, gradient, 0), ones_where(torch.gt, gradient, 0)
    return 1 - (low * down + high * up)


def direction(memory: Memory, gradient: Images, movable: Images) -> Images:
    """Minus the inverse Hessian, as far as it is remembered, times the gradient: a descent of the movable entries.

    A row that remembers nothing goes down its gradient, by one pixel unit in l2 or by the gradient, if that is less.
    """
    moves, turns = (pairs * movable.unsqueeze(1) for pairs in memory)
    curvature = (moves * turns).flatten(2).sum(2)
    size = (turns**2).flatten(2).sum(2)
    said = curvature > LEAST * size
    inverse = torch.where(said, 1 / torch.where(said, curvature, 1), 0)
    left, shares = gradient * movable, {}
    first = left / per_row(inner(left, left).sqrt().clamp_min(1), left)
    for i in reversed(range(moves.shape[1])):
        shares[i] = inverse[:, i] * inner(moves[:, i], left)
        left = left - per_row(shares[i], left) * turns[:, i]
    newest = (said * torch.arange(1, said.shape[1] + 1, device=said.device)).argmax(1, keepdim=True)
    scale = (curvature / torch.where(said, size, 1)).gather(1, newest).squeeze(1)
    down = per_row(scale, left) * left
    for i in range(moves.shape[1]):
        share = shares[i] - inverse[:, i] * inner(turns[:, i], down)
        down = down + per_row(share, down) * moves[:, i]
    return -torch.where(per_row(said.any(1), down), down, first)


def inner(one: Images, other: Images) -> PerRow:
    """The inner product of each row."""
    return (one * other).flatten(1).sum(1)


def _push(pairs: Pairs, last: Images, rows: Mask) -> Pairs:
    pushed = torch.cat([pairs[:, 1:], last.unsqueeze(1)], 1)
    return torch.lerp(pairs, pushed, per_row(rows.to(pairs.dtype), pairs))  # a choice by ones and zeros: quicker
