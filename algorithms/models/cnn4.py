"""The MNIST network of Wang et al. 2019, "On the Convergence and Robustness of Adversarial Training", section 5.1.

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
class Cnn4(Model):
    """Two 3x3 convolutions, each with batch norm, ReLU and max-pooling by two, then two dense layers."""

    width: int = 32  # channels of the first convolution; the second has twice as many
    hidden: int = 128  # units of the first dense layer
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for widths that make no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")
        checks.at_least("hidden", self.hidden, 1, "a number of units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 4x4 pixels or more."""
        blocks.needs("cnn4", shape, 4)
        return nn.Sequential(
            *self.normalisation.layers(shape),
            *(*blocks.normalised(shape[0], self.width), *blocks.pooled()),
            *(*blocks.normalised(self.width, 2 * self.width), *blocks.pooled()),
            nn.Flatten(),
            nn.Linear(2 * self.width * (shape[1] // 4) * (shape[2] // 4), self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
