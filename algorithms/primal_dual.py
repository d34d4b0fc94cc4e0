"""What the primal-dual attacks share: where they start, how fast they step, and the weights of their two aims.

(Matyasko and Chau 2021, https://arxiv.org/abs/2106.01538; thesis, https://doi.org/10.32657/10356/143316, section 5.2.)
The aims are a small norm and a wrong class. Their weights are a point (lambda_1, lambda_2) of the simplex, kept as
logarithms: gradient ascent is then a multiplicative update, and to normalise is to project. The norm's weight falls
against that of the class while a row is not adversarial and rises while it is. The attack uses an exponential average.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms import annealing, checks
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow

Weights = Float[Tensor, "batch 2"]  # of the norm and of the class

KEPT = 0.9  # share of the average that a step keeps
LIMIT = math.log(1e6)  # of the logarithm of the two weights' ratio, either way


def check(steps: int, fine_tuning: int, step_size: float, dual_step_size: float, ratio: float) -> None:
    """Raises ValueError for settings that make no sense."""
    checks.at_least("steps", steps, 1, "a number of steps")
    checks.between("fine_tuning", fine_tuning, 0, steps - 1, "how many of the steps refine the best point")
    checks.at_least("step_size", step_size, 0, "a length in pixel units")
    checks.at_least("dual_step_size", dual_step_size, 0, "the length of a step of the weights' logarithms")
    checks.between("ratio", ratio, 1e-6, 1e6, "the norm's weight over the class's")


class Pace(NamedTuple):
    """The step lengths of one step, and whether it is the first of the fine-tuning."""

    primal: float  # of the perturbation, in pixel units
    dual: float  # of the weights' logarithms
    seen: int  # of Adam's steps since its moments were zero, this one included
    from_best: bool  # this step starts at the best point instead of the last one, with moments of zero


def pace(step_size: float, dual_step_size: float, k: int, steps: int, fine_tuning: int) -> Pace:
    """The perturbation's steps fall exponentially to a hundredth, those of the weights linearly to a tenth.

    The last `fine_tuning` of the `steps` do the same again from the best point, beginning where the others end.
    """
    first = steps - fine_tuning
    step, of, scale = (k, first, 1.0) if k < first else (k - first, fine_tuning, 0.1)
    primal = annealing.exponential(step_size, step_size / 100, step / of) * scale**2
    dual = annealing.linear(dual_step_size, dual_step_size / 10, step / of) * scale
    return Pace(primal, dual, step + 1, from_best=k == first)


def start(problem: Problem, radius: float) -> Images:
    """The clean images, and for a restart a point uniform within `radius` of each pixel."""
    if problem.restart == 0:
        return problem.x
    noise = 2 * problem.streams.uniform(tuple(problem.x.shape[1:]), dtype=problem.x.dtype) - 1
    return (problem.x + radius * noise).clamp(0, 1)


def weights(x: Images, ratio: float) -> tuple[Weights, Weights]:
    """Logarithms of the first weights, with lambda_1 / lambda_2 = `ratio`, and their average."""
    logarithms = torch.log_softmax(x.new_tensor([math.log(ratio), 0.0]), 0).expand(len(x), 2)
    return logarithms, logarithms.exp()


def advance(logarithms: Weights, average: Weights, value: PerRow, length: float) -> tuple[Weights, Weights]:
    """Both after a step of `length`; `value` is positive where a row is adversarial, and only its sign counts."""
    gap = logarithms[:, 1] - logarithms[:, 0] - length * value.sign()
    gap = gap.clamp(-LIMIT, LIMIT)
    logarithms = torch.log_softmax(torch.stack([torch.zeros_like(gap), gap], 1), 1)
    return logarithms, torch.lerp(logarithms.exp(), average, KEPT)


def pull(value: PerRow) -> PerRow:
    """How strongly the class pulls at a margin of `value`: minus the slope of the surrogate softplus(-value).

    The thesis prints a hinge, whose slope is zero once a row is fooled: from there the perturbation could only shrink.
    """
    return torch.sigmoid(-value)
