"""Network in Network (Lin et al. 2014, https://arxiv.org/abs/1312.4400), as in chapter 3 of Matyasko's thesis."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class NetworkInNetwork(Model):
    """Three small networks slid over the image, with pooling and dropout between them, then the average over the image.

    Sizes and initial weights are those of the authors' definition for CIFAR-10, without its ReLU on the logits, which
    would hide gradients from attacks. The thesis also whitens images (ZCA): `normalisation.whitening = 0.1`. It is a
    layer of the network, so radii are of pixels, and those that the thesis quotes in whitened space do not apply.
    """

    dropout: float = 0.5  # share of units silenced after each pooling while training
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(contrast=True))

    def __post_init__(self) -> None:
        """Raises ValueError for a share that makes no sense."""
        checks.between("dropout", self.dropout, 0, 0.99, "a share of the units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 4x4 pixels or more."""
        blocks.needs("network_in_network", shape, 4)
        network = nn.Sequential(
            *self.normalisation.layers(shape),
            *slid(5, shape[0], 192, 160, 96),
            *(nn.MaxPool2d(3, stride=2, ceil_mode=True), *blocks.dropout(self.dropout)),
            *slid(5, 96, 192, 192, 192),
            *(nn.AvgPool2d(3, stride=2, ceil_mode=True), *blocks.dropout(self.dropout)),
            *slid(3, 192, 192, 192, classes)[:-1],
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.05)
                nn.init.zeros_(layer.bias)
        return network


def slid(kernel: int, *widths: int) -> list[nn.Module]:
    """A convolution and then 1x1 convolutions from each width to the next, each with ReLU; the image keeps its size."""
    layers: list[nn.Module] = []
    for channels, width in pairwise(widths):
        size = 1 if layers else kernel
        layers += [nn.Conv2d(channels, width, size, padding=size // 2), nn.ReLU()]
    return layers
