"""Adversarial weight perturbation (Wu et al. 2020, https://arxiv.org/abs/2004.05884, equation 8, in a single step).

The gradient is taken where the weights are worst within a small distance of where they are, which flattens the loss. It
belongs to how a gradient is taken, so that every defense can learn in this way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def weights_of(model: nn.Module) -> list[Tensor]:
    """What is perturbed: parameters of two axes or more, so no bias and no batch norm."""
    return [parameter for parameter in model.parameters() if parameter.dim() >= 2 and parameter.requires_grad]


@contextmanager
def perturbed(weights: list[Tensor], gradients: list[Tensor], size: float) -> Iterator[None]:
    """Within the block each weight W stands at W + size * ||W|| * G / ||G||, G its gradient; then, to the bit, at W."""
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                length = gradient.norm()
                weight.add_(torch.where(length > 0, size * weight.norm() / length, 0) * gradient)
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
