"""The MNIST network of Madry et al. 2018 (https://arxiv.org/abs/1706.06083); Matyasko's thesis attacks it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class MadryCnn(Model):
    """Two 5x5 convolutions that keep the size, each with ReLU and max-pooling by two, then two dense layers."""

    width: int = 32  # channels of the first convolution; the second has twice as many
    hidden: int = 1024  # units of the first dense layer
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for widths that make no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")
        checks.at_least("hidden", self.hidden, 1, "a number of units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 4x4 pixels or more."""
        blocks.needs("madry_cnn", shape, 4)
        return nn.Sequential(
            *self.normalisation.layers(shape),
            *(nn.Conv2d(shape[0], self.width, 5, padding=2), *blocks.pooled()),
            *(nn.Conv2d(self.width, 2 * self.width, 5, padding=2), *blocks.pooled()),
            nn.Flatten(),
            *(nn.Linear(2 * self.width * (shape[1] // 4) * (shape[2] // 4), self.hidden), nn.ReLU()),
            nn.Linear(self.hidden, classes),
        )
