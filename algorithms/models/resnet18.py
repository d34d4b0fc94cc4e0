"""ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) in its common form for 32x32 pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class ResNet18(Model):
    """A 3x3 convolution, four stages of two basic blocks each, average and a dense layer.

    The form for large images, with a 7x7 convolution and pooling in front, is the model `torchvision`.
    """

    width: int = 64  # channels of the first stage, doubled by each of the next
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for a width that makes no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes images of any size."""
        return nn.Sequential(
            *self.normalisation.layers(shape),
            *blocks.residual_stages(shape[0], self.width, blocks=2),
            *blocks.average(8 * self.width, classes),
        )
