"""The MNIST network of Wang et al. 2019 (https://arxiv.org/abs/2112.08304, section 5.1): two convolutions, two dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from algorithms.models import Model, Shape


@final
@dataclass(frozen=True, kw_only=True)
class Cnn4(Model):
    """Two 3x3 convolutions, each with batch norm, ReLU and max-pooling by two, then two dense layers."""

    width: int = 32  # channels of the first convolution; the second has twice as many
    hidden: int = 128  # units of the first dense layer

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of at least 4x4 pixels."""
        channels, height, tall = shape[0], shape[1] // 4, shape[2] // 4
        if not height or not tall:
            raise ValueError(f"cnn4 needs images of 4x4 pixels or more, not {shape[1]}x{shape[2]}")
        return nn.Sequential(
            *stage(channels, self.width),
            *stage(self.width, 2 * self.width),
            nn.Flatten(),
            nn.Linear(2 * self.width * height * tall, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )


def stage(channels: int, width: int) -> list[nn.Module]:
    """Convolution, batch norm, ReLU, max-pooling."""
    return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
