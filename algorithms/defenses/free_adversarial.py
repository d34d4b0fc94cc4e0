"""Free adversarial training (Shafahi et al. 2019, https://arxiv.org/abs/1904.12843, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import balls, checks
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.models import Shape
from algorithms.search import Record, unperturbed
from algorithms.team import Companion, Companions, companion, rows_of
from algorithms.tensors import Images, Labels
from algorithms.updates import Parameters, State, Update

Norm = Literal["linf", "l2"]


@final
class Noise(nn.Module):
    """A perturbation for each place of the batch, which goes on from step to step."""

    def __init__(self, batch: int, shape: Shape) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(batch, *shape))


@final
@dataclass(frozen=True, kw_only=True)
class Climb(Update):
    """Moves perturbations up the loss by a steepest step, and back onto the ball."""

    norm: Norm
    eps: float
    step_size: float

    def start(self, parameters: Parameters) -> State:
        """Nothing."""
        return {}

    @torch.no_grad()
    def step(self, parameters: Parameters, gradients: Parameters, state: State) -> tuple[Parameters, State]:
        """One step for all places of the batch."""
        moved = {
            name: balls.project(
                delta + self.step_size * balls.steepest(gradients[name], self.norm), self.norm, self.eps
            )
            for name, delta in parameters.items()
        }
        return moved, state


@final
@dataclass(frozen=True, kw_only=True)
class FreeAdversarial(Defense):
    """Learns from perturbations that move with the weights: one backward pass gives the gradient for both.

    A step costs what one of plain training does. Let each batch be learnt from several times in a row
    (`train.replays = 4`, with a quarter of the epochs), so that perturbations have time to grow; they go on into the
    next batch. Take the gradient where the examples are: with a `train.lag` perturbations are as old as it says.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    stride: float = 1.0  # length of a step in radii

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("stride", self.stride, 0, "a length in radii")

    def companions(self, shape: Shape, classes: int, batch: int) -> Companions:
        """The perturbations, zero at first."""
        climb = Climb(norm=self.norm, eps=self.eps, step_size=self.stride * self.eps)
        return {"noise": Companion(Noise(batch, shape), climb)}

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The images with the perturbations as they are, at no cost."""
        with torch.no_grad():
            x_adv = self._noisy(model, x)
        return unperturbed(x)._replace(x_adv=x_adv, norm=balls.size(x_adv - x, self.norm))

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the perturbed images, with a gradient for the perturbations too."""
        return functional.cross_entropy(predict(model, self._noisy(model, x)), y)

    def _noisy(self, model: nn.Module, x: Images) -> Images:
        delta = companion(model, "noise", Noise).delta[rows_of(model)]
        return (x + delta.to(x.dtype)).clamp(0, 1)
