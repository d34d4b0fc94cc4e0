"""LeNet-5 (LeCun et al. 1998) as Matyasko's thesis has it, chapters 3 and 4: wider, with ReLU and max-pooling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.blocks import Initialisation
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class LeNet5(Model):
    """Two 5x5 convolutions without padding, each with ReLU and max-pooling by two, then two dense layers.

    The thesis draws weights with "glorot" in chapter 3, "he" in chapter 4; its dropout baseline has a share of 0.5.
    """

    dropout: float = 0.0  # share of units silenced before and after the first dense layer while training
    initialisation: Initialisation = "torch"
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for a share that makes no sense."""
        checks.between("dropout", self.dropout, 0, 0.99, "a share of the units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 16x16 pixels or more."""
        blocks.needs("lenet5", shape, 16)
        height, breadth = (((side - 4) // 2 - 4) // 2 for side in shape[1:])
        network = nn.Sequential(
            *self.normalisation.layers(shape),
            *(nn.Conv2d(shape[0], 32, 5), *blocks.pooled()),
            *(nn.Conv2d(32, 64, 5), *blocks.pooled()),
            nn.Flatten(),
            *blocks.dropout(self.dropout),
            *(nn.Linear(64 * height * breadth, 512), nn.ReLU()),
            *blocks.dropout(self.dropout),
            nn.Linear(512, classes),
        )
        blocks.initialise(network, self.initialisation)
        return network
