"""Wide residual networks (Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class WideResNet(Model):
    """A 3x3 convolution, three stages of pre-activation blocks, average and a dense layer.

    Depth 34 and widening 10 is the network of TRADES; Madry et al. count its layers otherwise and call it w32-10.
    """

    depth: int = 34  # layers, 6 n + 4 for n blocks a stage
    widen_factor: int = 10  # channels of the first stage, in units of 16
    dropout: float = 0.0  # share of units silenced between the convolutions of a block while training
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth: a number of layers, 6 n + 4 (10, 16, 22, 28, 34, ...), not {self.depth}")
        checks.at_least("widen_factor", self.widen_factor, 1, "a multiple of 16 channels")
        checks.between("dropout", self.dropout, 0, 0.99, "a share of the units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes images of any size. Convolutions start as in the authors' code: normal, scaled by the fan-out."""
        layers, channels = [*self.normalisation.layers(shape), blocks.thin(shape[0], 16)], 16
        for stage in range(3):
            width = 16 * self.widen_factor << stage
            for place in range((self.depth - 4) // 6):
                stride = 2 if stage > 0 and place == 0 else 1
                layers.append(blocks.PreActivationBlock(channels, width, stride, self.dropout))
                channels = width
        network = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *blocks.average(channels, classes))
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return network
