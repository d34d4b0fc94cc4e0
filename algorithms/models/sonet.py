"""SONet, the stabilised neural ODE network of Huang et al. 2021 (https://proceedings.mlr.press/v145/huang22a.html).

Its published robustness comes from gradients that adaptive solvers obfuscate; fixed steps are the default here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import nn

from algorithms import blocks, checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation
from algorithms.ode import skew
from algorithms.ode.skew import Skew
from algorithms.ode.solver import Solver, solvers


@final
@dataclass(frozen=True, kw_only=True)
class SONet(Model):
    """Five skew-symmetric ODE blocks of convolutions, average, and one that classifies."""

    width: int = 32  # channels of the first two blocks, doubled by each of the next; the paper has 32 and 64
    block: Skew = field(default_factory=Skew)
    solver: Solver = field(default_factory=Solver)
    prediction: Solver | None = None  # the solver in evaluation mode, in which it is attacked too; none: the same
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for a width that makes no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of 8x8 pixels or more."""
        blocks.needs("sonet", shape, 8)
        both = solvers(self.solver, self.prediction)
        widths = [shape[0], self.width, *(self.width << stage for stage in range(4))]
        layers: list[nn.Module] = [
            skew.block(widths[place], widths[place + 1], 1 if place < 2 else 2, self.block, both, f"sonet.block{place}")
            for place in range(5)
        ]
        head = skew.classifier(widths[-1], classes, self.block, both, "sonet.classifier")
        return nn.Sequential(*self.normalisation.layers(shape), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
