"""Square attack (Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049, algorithms 1 to 3).

The l1 form is that of Croce and Hein 2021 (https://arxiv.org/abs/2103.01208, section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from algorithms import balls, boxes, checks
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.streams import Streams
from algorithms.tensors import Images, PerRow, per_row

HALVINGS = (
    0.001,
    0.005,
    0.02,
    0.05,
    0.1,
    0.2,
    0.4,
    0.6,
    0.8,
)  # of the queries; then squares halve in area
TILES = 5  # in l2 and l1: bumps along the shorter side at first
FAR = 100  # radii from which l2 perturbations are projected: what the box takes from a pixel goes to the others
SIGNS, PLACE, OTHER_PLACE, TURN = range(4)  # what a row's random numbers are for


class Best(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    value: PerRow


@final
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search with squares: changes a square of pixels at a time and keeps the change if the loss has risen.

    The strongest simple attack that needs no gradient, only logits: it works where a model rounds, draws random numbers
    or is a program, and where it beats a gradient attack, gradients are masked. Squares are large at first and shrink.
    In linf the image lies on corners of the ball: it begins with stripes, and each square has one sign a channel. In l2
    and l1 a square holds a bump beside a dent, and takes the budget of the square that it replaces and of another one.

    Each step is one query, a forward pass. Two things are mended. A proposal in linf that would change nothing has its
    signs turned, so that no query is wasted. In l2 what the box takes from a pixel goes to the others: on MNIST that
    leaves 53 % standing where the published rule leaves 78 %, after 2,000 queries.
    """

    norm: Literal["linf", "l2", "l1"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    steps: int = 5000  # queries
    restarts: int = 1
    share: float = 0.8  # of the image that the first squares cover (the paper's p)
    loss: Loss = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("steps", self.steps, 1, "a number of queries")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.between("share", self.share, 0, 1, "a share of the image")

    def start(self, problem: Problem) -> Best:
        """Nothing is known yet."""
        return Best(problem.x, torch.full_like(problem.x[:, 0, 0, 0], -torch.inf))

    def step(self, problem: Problem, state: Best, k: int) -> Best:
        """One query."""
        proposal = self._first(problem) if k == 0 else self._next(problem, state.x_adv, k)
        value = problem.loss(problem.predict(proposal, self.loss), self.loss)
        if k == self.steps - 1:
            problem.finish(torch.ones_like(value, dtype=torch.bool))  # the best point has been judged already
        better = value > state.value
        return Best(torch.where(per_row(better, proposal), proposal, state.x_adv), torch.maximum(value, state.value))

    def side(self, k: int, shape: tuple[int, ...]) -> int:
        """Of the squares of query `k`, in pixels; odd where they hold bumps."""
        area = self.share / 2 ** sum(k / self.steps > share for share in HALVINGS)
        shortest = min(shape[-2:])
        side = round(math.sqrt(area * shape[-2] * shape[-1]))
        if self.norm == "linf":
            return min(max(side, 1), shortest)
        side = min(max(side, 3), shortest)
        return side if side % 2 else max(side - 1, 1)

    def _first(self, problem: Problem) -> Images:
        x, signs = problem.x, problem.streams.fork(SIGNS)
        channels, height, width = x.shape[1:]
        if self.norm == "linf":
            return (x + self.eps * signs.signs((channels, 1, width), dtype=x.dtype)).clamp(0, 1)
        side = max(1, min(height, width) // TILES)
        down, across = -(-height // side), -(-width // side)
        tiles = bump(side, x.dtype, x.device).repeat(down, across)[:height, :width]
        turned = signs.signs((channels, down, across), dtype=x.dtype)
        turned = turned.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
        return self._inside(x, tiles * turned)

    def _next(self, problem: Problem, best: Images, k: int) -> Images:
        x, streams, side = problem.x, problem.streams, self.side(k, problem.x.shape)
        row, column = _place(streams.fork(PLACE), x, side, k)
        square = _within(row, side, x) * _within(column, side, x)
        signs = streams.fork(SIGNS).signs((x.shape[1], 1, 1), k, dtype=x.dtype)
        if self.norm == "linf":
            proposal = torch.lerp(best, (x + self.eps * signs).clamp(0, 1), square)
            same = balls.size(proposal - best, "linf") == 0
            if not same.any():
                return proposal
            return torch.where(per_row(same, x), torch.lerp(best, (x - self.eps * signs).clamp(0, 1), square), proposal)
        flipped = streams.fork(TURN).signs((1, 1, 1), k) > 0
        down, across = torch.where(flipped, column, row), torch.where(flipped, row, column)
        bumps = signs * square * bump(side, x.dtype, x.device)[down.clamp(0, side - 1), across.clamp(0, side - 1)]
        row, column = _place(streams.fork(OTHER_PLACE), x, side, k)
        return self._inside(x, self._moved(best - x, bumps, square, _within(row, side, x) * _within(column, side, x)))

    def _moved(self, delta: Images, bumps: Images, square: Images, other: Images) -> Images:
        """The perturbation with `bumps` added in one square, at the cost of the other. Algorithm 3, lines 6 to 12."""
        order = balls.ORDER[self.norm]
        unused = (self.eps**order - balls.size(delta, self.norm) ** order).clamp_min(0) / delta.shape[1]
        both = torch.maximum(square, other)
        there = self._sizes(delta * both) ** order
        budget = (per_row(unused, delta) + there) ** (1 / order)
        old = delta * square
        new = bumps / self._sizes(bumps).clamp_min(1e-12) + old / self._sizes(old).clamp_min(1e-12)
        return delta * (1 - both) + budget * new / self._sizes(new).clamp_min(1e-12)

    def _sizes(self, delta: Images) -> Tensor:
        """The norm of each channel, (batch, channels, 1, 1)."""
        sizes: Tensor = torch.linalg.vector_norm(delta, balls.ORDER[self.norm], dim=(2, 3), keepdim=True)
        return sizes

    def _inside(self, x: Images, delta: Images) -> Images:
        """The image with a perturbation of that direction which uses the whole radius, as far as the box lets it."""
        if self.norm == "l2":
            delta = delta * (FAR * self.eps / per_row(balls.size(delta, self.norm), x).clamp_min(1e-12))
        return (x + boxes.project(x, delta, self.norm, self.eps)).clamp(0, 1)


@cache
def bump(side: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """(side, side): a bump in the upper half and a dent in the lower one. Equation 2."""
    upper, lower = _pyramid(side // 2, side), _pyramid(side - side // 2, side)
    return torch.cat([upper, -lower]).to(device, dtype)


def _pyramid(height: int, width: int) -> Tensor:
    """At a distance m from the middle, in the maximum norm, the sum of 1 / (j + 1)^2 for j from m to the edge."""
    down, across = (torch.arange(height) - height // 2).abs(), (torch.arange(width) - width // 2).abs()
    terms = 1 / torch.arange(1.0, max(height, width) // 2 + 2) ** 2
    return terms.flip(0).cumsum(0).flip(0)[torch.maximum(down.unsqueeze(1), across)]


def _place(streams: Streams, x: Images, side: int, k: int) -> tuple[Tensor, Tensor]:
    """A random square's place: each pixel's row and column in it, (batch, 1, height, 1) and (batch, 1, 1, width)."""
    height, width = x.shape[2:]
    row, column = streams.uniform((2,), k, dtype=torch.float64).split(1, 1)
    top, left = ((at * (length - side + 1)).floor().long() for at, length in ((row, height), (column, width)))
    down, across = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    return (down - top)[:, None, :, None], (across - left)[:, None, None, :]


def _within(place: Tensor, side: int, like: Images) -> Tensor:
    """Ones inside of a square, zeros outside."""
    return ((place >= 0) & (place < side)).to(like)
