"""The CIFAR-10 network that Matyasko's thesis attacks in chapter 5: that of Croce and Hein 2020.

Eight convolutions and two dense layers (https://arxiv.org/abs/1907.02044; weights in github.com/fra31/fab-attack).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation

WIDTHS = (96, 96, 192, 192, 192, 192, 192, 384)
STRIDES = (1, 1, 2, 1, 1, 2, 1, 2)


@final
@dataclass(frozen=True, kw_only=True)
class Cnn9(Model):
    """Eight convolutions, 3x3 but for the last, 2x2; strides take the place of pooling; then two dense layers."""

    hidden: int = 1200  # units of the first dense layer
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for a width that makes no sense."""
        checks.at_least("hidden", self.hidden, 1, "a number of units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 5x5 pixels or more."""
        blocks.needs("cnn9", shape, 5)
        layers, channels = self.normalisation.layers(shape), shape[0]
        for width, stride in zip(WIDTHS[:-1], STRIDES[:-1], strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.ReLU()]
            channels = width
        height, breadth = ((side + 3) // 4 // 2 for side in shape[1:])  # two strides round up, the last one down
        return nn.Sequential(
            *layers,
            nn.Conv2d(channels, WIDTHS[-1], 2, stride=STRIDES[-1]),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(WIDTHS[-1] * height * breadth, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
