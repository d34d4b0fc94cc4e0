"""Networks and images for the tests of models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algorithms.models import Model, Shape

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def built(model: Model, shape: Shape, classes: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model.build(shape, classes)


def sketched(model: Model, shape: Shape, classes: int = 10) -> nn.Module:
    """The network without storage: only shapes."""
    with torch.device("meta"):
        return model.build(shape, classes)


def pixels(shape: Shape, rows: int = 4) -> Tensor:
    return torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1))
