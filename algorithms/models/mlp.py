"""A fully connected network, as in chapters 3 and 4 of Matyasko's thesis (3 x 1000 and 3 x 1200 units)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.blocks import Initialisation
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class Mlp(Model):
    """Dense layers with ReLU between them; with no hidden layer, a linear classifier.

    The thesis draws weights with "glorot" in chapter 3, "he" in chapter 4; its dropout baseline has a share of 0.5.
    """

    hidden: tuple[int, ...] = (1000, 1000, 1000)  # units of each hidden layer
    dropout: float = 0.0  # share of units silenced after each hidden layer while training
    initialisation: Initialisation = "torch"
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        for units in self.hidden:
            checks.at_least("hidden", units, 1, "a number of units")
        checks.between("dropout", self.dropout, 0, 0.99, "a share of the units")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes images of any shape."""
        layers, width = [*self.normalisation.layers(shape), nn.Flatten()], math.prod(shape)
        for units in self.hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), *blocks.dropout(self.dropout)]
            width = units
        network = nn.Sequential(*layers, nn.Linear(width, classes))
        blocks.initialise(network, self.initialisation)
        return network
