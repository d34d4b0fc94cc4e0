"""Gradients made fit for a step of a set length."""

from __future__ import annotations

import torch

from algorithms import balls
from algorithms.search import Problem
from algorithms.tensors import Images, ones_where, per_row


def movable(gradient: Images, x_adv: Images) -> Images:
    """The gradient where a step along it can go: zero where a pixel is at 0 or 1 and is pushed further out."""
    most = torch.finfo(gradient.dtype).max
    low = -most * ones_where(torch.gt, x_adv, 0)  # bounds of zero, or none to speak of
    high = most * ones_where(torch.lt, x_adv, 1)
    return torch.minimum(torch.maximum(gradient, low), high)


def random_if_zero(gradient: Images, problem: Problem, k: int) -> Images:
    """The gradient, or where it is zero (a saturated softmax, say) a random direction: a row's own, for step `k`."""
    zero = balls.size(gradient, "linf") == 0
    if not zero.any():
        return gradient
    noise = problem.streams.normal(tuple(gradient.shape[1:]), k, dtype=gradient.dtype)
    return torch.where(per_row(zero, gradient), noise, gradient)
