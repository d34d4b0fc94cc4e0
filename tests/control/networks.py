"""Small networks in double precision for the tests of optimal control, and the loss that they are trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """x + g(x), with g a convolution, a batch norm and a ReLU that writes into its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        moved: Tensor = self.relu(self.norm(self.conv(x)))
        return x + moved


def residual() -> nn.Sequential:
    """A convolution with a stride and a bias, batch norm, a residual block and a dense layer, for 8x8 images."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        Residual(4),
        nn.Flatten(),
        nn.Linear(64, 3),
    ).double()


def plain() -> nn.Sequential:
    """Two convolutions, a max-pooling and two dense layers, for 8x8 images."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    ).double()


def batch(channels: int, count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random 8x8 images and classes."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(count, channels, 8, 8, generator=rng, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=rng)
