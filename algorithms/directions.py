"""Gradients made fit for a step of a set length."""

from __future__ import annotations

import torch

from algorithms import balls
from algorithms.search import Problem
from algorithms.tensors import Images, per_row


def movable(gradient: Images, x_adv: Images) -> Images:
    """The gradient where a step along it can go: zero where a pixel is at 0 or 1 and is pushed further out."""
    stuck = ((x_adv <= 0) & (gradient < 0)) | ((x_adv >= 1) & (gradient > 0))
    return gradient.masked_fill(stuck, 0)


def random_if_zero(gradient: Images, problem: Problem, k: int) -> Images:
    """The gradient, or where it is zero (a saturated softmax, say) a random direction: a row's own, for step `k`."""
    zero = balls.size(gradient, "linf") == 0
    if not zero.any():
        return gradient
    noise = problem.streams.normal(tuple(gradient.shape[1:]), k, dtype=gradient.dtype)
    return torch.where(per_row(zero, gradient), noise, gradient)
