"""Gaussian kernel density (Parzen 1962, https://doi.org/10.1214/aoms/1177704472), as the plots of FOSC use it.

The kernel's width follows Scott's rule: standard deviation times n^(-1/5). Values that are all the same have no spread;
they get a kernel as narrow as a thousandth of their size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 4096  # values taken at once, so that memory stays bounded


def density(values: Tensor, at: Tensor) -> Tensor:
    """The density of `values` (n,) at the points `at` (k,), float64."""
    sample, points = _sample(values), at.double()
    width = bandwidth(sample)
    total = torch.zeros_like(points)
    for block in sample.split(BLOCK):
        total += torch.exp(-0.5 * ((points.unsqueeze(1) - block) / width).square()).sum(1)
    return total / (len(sample) * width * math.sqrt(2 * math.pi))


def mass(values: Tensor, low: float, high: float) -> float:
    """The share of the density between `low` and `high`, in closed form."""
    sample = _sample(values)
    ends = (torch.tensor([[low], [high]], dtype=torch.float64, device=sample.device) - sample) / bandwidth(sample)
    below = torch.special.ndtr(ends).mean(1)
    share: float = (below[1] - below[0]).item()
    return share


def bandwidth(values: Tensor) -> float:
    """The standard deviation of the kernel, by Scott's rule."""
    sample = _sample(values)
    spread = sample.std().item() if len(sample) > 1 else 0.0
    smallest = max(1e-3 * sample.abs().max().item(), 1e-12)
    return max(spread, smallest) * math.pow(len(sample), -0.2)


def _sample(values: Tensor) -> Tensor:
    """`values` as float64. Raises ValueError where there is nothing to estimate a density from."""
    if values.dim() != 1 or len(values) == 0 or not values.isfinite().all():
        raise ValueError(
            f"values: finite numbers (n,) expected, one at least, got {tuple(values.shape)} or some not finite"
        )
    return values.double()
