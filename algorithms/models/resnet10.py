"""The ten-layer residual network with which the stabilised neural ODEs, SONet and SOBlock, are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class ResNet10(Model):
    """A 3x3 convolution, four stages of one basic block each, average and a dense layer."""

    width: int = 32  # channels of the first stage, doubled by each of the next; the paper has 32 and 64
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for a width that makes no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes images of any size."""
        return nn.Sequential(
            *self.normalisation.layers(shape),
            *blocks.residual_stages(shape[0], self.width, blocks=1),
            *blocks.average(8 * self.width, classes),
        )
