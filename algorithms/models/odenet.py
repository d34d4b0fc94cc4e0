"""A network of neural ODEs (Chen, Rubanova, Bettencourt and Duvenaud 2018, https://arxiv.org/abs/1806.07366).

As Huang et al. 2021 compare with it: ten blocks at the image's own size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation
from algorithms.ode.flow import Flow
from algorithms.ode.skew import group_norm, tiled
from algorithms.ode.solver import Solver, Solvers, solvers
from algorithms.ode.watch import State

GROUPS = 32  # of group norm, at most
POOLED = 3  # sides of the image at the end


@final
@dataclass(frozen=True, kw_only=True)
class OdeNet(Model):
    """The image's channels over and over, ODE blocks of two convolutions, group norm, a 3x3 average, a dense layer."""

    width: int = 54  # channels
    depth: int = 10  # ODE blocks
    solver: Solver = field(default_factory=Solver)
    prediction: Solver | None = None  # the solver in evaluation mode, in which it is attacked too; none: the same
    normalisation: Normalisation = field(default_factory=Normalisation)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("width", self.width, 1, "a number of channels")
        checks.at_least("depth", self.depth, 1, "a number of ODE blocks")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes images of any size."""
        both = solvers(self.solver, self.prediction)
        layers: list[nn.Module] = [OdeBlock(self.width, both, f"odenet.block{place}") for place in range(self.depth)]
        return nn.Sequential(
            *self.normalisation.layers(shape),
            Tiled(self.width),
            *layers,
            group_norm(self.width, GROUPS),
            nn.AdaptiveAvgPool2d(POOLED),
            nn.Flatten(),
            nn.Linear(self.width * POOLED**2, classes),
        )


@final
class Tiled(nn.Module):
    """Repeats the image's channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The first `width` of the channels over and over."""
        return tiled(x, self.width)


@final
class OdeField(nn.Module):
    """Group norm, ReLU and a 3x3 convolution that also sees the time, twice, and group norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([group_norm(width, GROUPS) for _ in range(3)])
        self.convolutions = nn.ModuleList([nn.Conv2d(width + 1, width, 3, padding=1) for _ in range(2)])

    def forward(self, t: Tensor, state: State) -> State:
        """The derivative at time `t`."""
        (x,) = state
        for norm, convolution in zip(self.norms[:-1], self.convolutions, strict=True):
            x = functional.relu(norm(x))
            x = convolution(torch.cat([torch.ones_like(x[:, :1]) * t, x], dim=1))
        return (self.norms[-1](x),)


@final
class OdeBlock(nn.Module):
    """An image to one of the same shape."""

    def __init__(self, width: int, both: Solvers, name: str) -> None:
        super().__init__()
        self.flow = Flow(OdeField(width), both, name)

    def forward(self, x: Tensor) -> Tensor:
        """The image at time 1."""
        end: Tensor = self.flow(x)[0]
        return end
