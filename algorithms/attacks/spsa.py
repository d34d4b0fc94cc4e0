"""SPSA (Uesato et al. 2018, https://arxiv.org/abs/1802.05666, algorithm 1; Spall 1992 for the estimate)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch

from algorithms import balls, checks, moments
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, per_row

TOGETHER = 128  # points that a pass holds, if a pair of each image is not more


class Iterate(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    mean: Images  # Adam's moments
    square: Images


@final
@dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    """Estimates the gradient from pairs of queries at random corners of a small cube, and follows it with Adam.

    For a model without gradients, or one whose gradients mislead: what this attack finds and PGD does not is masked.
    With signs v drawn at random, the mean of v (f(x + delta v) - f(x - delta v)) / (2 delta) over `samples` pairs is on
    average the gradient of a linear f. It is noisy: in d dimensions its cosine to the true gradient is about
    sqrt(n / (n + d)) for n samples, so `square` is stronger for the same number of queries.

    A step costs 2 `samples` + 1 forward passes, of which the last judges the iterate; a search, one more.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    steps: int = 20
    restarts: int = 1  # the first from the clean image, others from points uniform in the ball
    samples: int = 32  # pairs of queries a step
    distance: float = 0.01  # of a query from the iterate along each axis, in pixel units (the paper's delta)
    step_size: float = 0.01  # of Adam, in pixel units
    loss: Loss = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.at_least("samples", self.samples, 1, "a number of pairs of queries")
        checks.at_least("distance", self.distance, 1e-6, "a length in pixel units")
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")

    def start(self, problem: Problem) -> Iterate:
        """The clean images, or points uniform in the ball around them."""
        x_adv = problem.x
        if problem.restart:
            x_adv = (x_adv + balls.random_point(x_adv, self.norm, self.eps, problem.streams.fork(1))).clamp(0, 1)
        problem.predict(x_adv)
        return Iterate(x_adv, torch.zeros_like(x_adv), torch.zeros_like(x_adv))

    def step(self, problem: Problem, state: Iterate, k: int) -> Iterate:
        """A step of Adam along the estimate, back onto the ball and into the box."""
        mean, square = moments.advance(state.mean, state.square, self.estimate(problem, state.x_adv, k))
        direction, scale = moments.corrected(mean, square, k + 1)
        moved = state.x_adv + self.step_size * direction / scale
        x_adv = (problem.x + balls.project(moved - problem.x, self.norm, self.eps)).clamp(0, 1)
        problem.predict(x_adv)
        if k == self.steps - 1:
            problem.finish(torch.ones_like(problem.y, dtype=torch.bool))  # all have just been judged
        return Iterate(x_adv, mean, square)

    def estimate(self, problem: Problem, x_adv: Images, k: int) -> Images:
        """The gradient of the loss at `x_adv`, roughly: a mean over pairs, whose points may leave ball and box."""
        total, samples = torch.zeros_like(x_adv), range(k * self.samples, (k + 1) * self.samples)
        together = max(1, TOGETHER // (2 * len(x_adv)))
        for first in samples[::together]:
            drawn = range(first, min(first + together, samples.stop))
            signs = [problem.streams.signs(tuple(x_adv.shape[1:]), n, dtype=x_adv.dtype) for n in drawn]
            ahead, behind = (x_adv + way * self.distance * torch.stack(signs) for way in (1, -1))
            higher, lower = problem.values(torch.cat([ahead, behind])).chunk(2)
            slopes = (higher - lower) / (2 * self.distance * self.samples)
            for slope, along in zip(slopes, signs, strict=True):
                total += per_row(slope, along) * along
        return total
