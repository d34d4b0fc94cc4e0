"""The CIFAR-10 network of Wang et al. 2019, "On the Convergence and Robustness of Adversarial Training", section 5.1.

ICML 2019, https://proceedings.mlr.press/v97/wang19i.html. The widths are those of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class Cnn8(Model):
    """Three pairs of 3x3 convolutions, each pair with max-pooling by two, then two dense layers.

    Batch norm follows every layer but the last.
    """

    widths: tuple[int, int, int] = (64, 128, 196)  # channels of each pair
    hidden: int = 256  # units of the first dense layer
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for widths that make no sense."""
        for width in self.widths:
            checks.at_least("widths", width, 1, "a number of channels")
        checks.at_least("hidden", self.hidden, 1, "a number of units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 8x8 pixels or more."""
        blocks.needs("cnn8", shape, 8)
        layers, channels = self.normalisation.layers(shape), shape[0]
        for width in self.widths:
            layers += [*blocks.normalised(channels, width), nn.ReLU()]
            layers += [*blocks.normalised(width, width), *blocks.pooled()]
            channels = width
        return nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * (shape[1] // 8) * (shape[2] // 8), self.hidden),
            nn.BatchNorm1d(self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
