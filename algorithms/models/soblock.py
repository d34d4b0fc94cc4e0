"""SOBlock: ResNet10 with a stabilised ODE block for its first layer (Huang et al. 2021).

https://proceedings.mlr.press/v145/huang22a.html

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

STEM = 3  # layers that the ODE block replaces: convolution, batch norm, ReLU


@final
@dataclass(frozen=True, kw_only=True)
class SOBlock(Model):
    """A skew-symmetric ODE block, then the four stages of ResNet10, average and a dense layer."""

    width: int = 32  # channels of the block and the first stage, doubled by each of the next; the paper has 32 and 64
    block: Skew = field(default_factory=Skew)
    solver: Solver = field(default_factory=Solver)
    prediction: Solver | None = None  # the solver in evaluation mode, in which it is attacked too; none: the same
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for a width that makes no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes images of any size."""
        both = solvers(self.solver, self.prediction)
        return nn.Sequential(
            *self.normalisation.layers(shape),
            skew.block(shape[0], self.width, 1, self.block, both, "soblock.block"),
            *blocks.residual_stages(shape[0], self.width, blocks=1)[STEM:],
            *blocks.average(8 * self.width, classes),
        )
