"""Sigma-zero (Cinà et al. 2025, https://arxiv.org/abs/2402.01879, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import annealing, balls, checks, moments
from algorithms.attacks import Attack
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow, ones_where, per_row


class Sparse(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    mean: Images  # Adam's moments
    square: Images
    threshold: PerRow  # perturbations smaller than this, in pixel units, are set to zero


@final
@dataclass(frozen=True, kw_only=True)
class SigmaZero(Attack):
    """Descends a smooth count of the changed entries, and sets to zero those below a threshold that adapts.

    The strongest quick attack for l0: steps as cheap as PGD's, one forward and one backward pass, and no setting to
    tune. While a row is fooled the threshold rises and only the count is descended; while it is not, the threshold
    falls and the margin is descended too. An entry d counts as d^2 / (d^2 + smoothness) (equation 6).
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l0"] = "l0"
    steps: int = 1000
    step_size: float = 1.0  # in pixel units, before it falls to a tenth
    smoothness: float = 1e-3  # the paper's sigma; the smaller, the nearer to a true count
    threshold: float = 0.3  # the first one, in pixel units (the paper's tau_0)
    threshold_rate: float = 0.01  # how fast it moves, in step sizes a step (the paper's t)
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.at_least("smoothness", self.smoothness, 1e-12, "the square of a length in pixel units")
        checks.between("threshold", self.threshold, 0, 1, "a length in pixel units")
        checks.at_least("threshold_rate", self.threshold_rate, 0, "a share of the step size")

    def start(self, problem: Problem) -> Sparse:
        """The clean images."""
        zero = torch.zeros_like(problem.x)
        return Sparse(problem.x, zero, zero, torch.full_like(problem.x[:, 0, 0, 0], self.threshold))

    def step(self, problem: Problem, state: Sparse, k: int) -> Sparse:
        """A step of Adam down the margin and the smooth count, then the threshold."""
        at = problem.gradient(state.x_adv, self.loss)
        fooled = at.value > 0
        delta = state.x_adv - problem.x
        count = 2 * delta * self.smoothness / (delta**2 + self.smoothness) ** 2 / delta[0].numel()
        gradient = count - per_row((~fooled).to(delta.dtype), delta) * at.gradient
        gradient = gradient / per_row(balls.size(gradient, "linf"), gradient).clamp_min(1e-30)
        mean, square = moments.advance(state.mean, state.square, gradient)
        direction, scale = moments.corrected(mean, square, k + 1)
        length, following = self._length(k), self._length(k + 1)
        delta = (state.x_adv - length * direction / scale).clamp(0, 1) - problem.x
        moved = self.threshold_rate * following
        threshold = (state.threshold + torch.where(fooled, moved, -moved)).clamp(0, 1)
        kept = delta * ones_where(torch.ge, delta.abs(), per_row(threshold, delta))
        return Sparse((problem.x + kept).clamp(0, 1), mean, square, threshold)

    def _length(self, k: int) -> float:
        """Of step k, in pixel units: the first two have the full one, as in the authors' code."""
        return annealing.cosine(self.step_size, self.step_size / 10, max(k - 1, 0) / self.steps)
