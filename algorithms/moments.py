"""Adam's running moments of an image's gradient, row by row (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980)."""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.tensors import Images, per_row

MEAN_KEPT = 0.9  # beta_1
SQUARE_KEPT = 0.999  # beta_2
SMALLEST = 1e-8  # added to the denominator


def advance(mean: Images, square: Images, gradient: Images) -> tuple[Images, Images]:
    """The running means of the gradient and of its square after one more gradient; both begin at zero."""
    return torch.lerp(gradient, mean, MEAN_KEPT), torch.lerp(gradient**2, square, SQUARE_KEPT)


def corrected(mean: Images, square: Images, steps: int | Tensor) -> tuple[Images, Images]:
    """The direction and the denominator of Adam's step after `steps` gradients, one number or one a row."""
    count = per_row(steps, mean) if isinstance(steps, Tensor) else steps
    return mean / (1 - MEAN_KEPT**count), (square / (1 - SQUARE_KEPT**count)).sqrt() + SMALLEST
