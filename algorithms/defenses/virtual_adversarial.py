"""Virtual adversarial training (Miyato et al. 2018, https://arxiv.org/abs/1704.03976, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import balls, checks
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.defenses import Defense
from algorithms.divergences import kullback_leibler
from algorithms.gradients import predict
from algorithms.losses import Loss
from algorithms.search import Problem, Record, search
from algorithms.tensors import Images, Labels, Logits


class Iterate(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    clean: Logits  # predicted for the clean images


@final
@dataclass(frozen=True, kw_only=True)
class PowerIteration(Attack):
    """Finds the direction in which the divergence curves most: at the clean image it has neither value nor slope.

    The gradient at a short distance `probe` is about `probe` times the Hessian times the direction.
    """

    eps: float
    probe: float
    clipped: bool
    steps: int = 1
    norm: Norm = "l2"
    loss: Loss = "cross_entropy"  # judges success, and is not climbed
    targeted: bool = False

    def start(self, problem: Problem) -> Iterate:
        """A short way in a random direction."""
        noise = problem.streams.normal(tuple(problem.x.shape[1:]), dtype=problem.x.dtype)
        return Iterate(problem.x + self.probe * balls.steepest(noise, "l2"), problem.predict(problem.x))

    def step(self, problem: Problem, state: Iterate, k: int) -> Iterate:
        """One multiplication by the Hessian; after the last, the whole radius along the direction."""
        clean = state.clean
        gradient = problem.gradient_of(state.x_adv, lambda logits: kullback_leibler(clean, logits)).gradient
        direction = balls.steepest(gradient, "l2")
        if k < self.steps - 1:
            return Iterate(problem.x + self.probe * direction, clean)
        x_adv = problem.x + self.eps * direction
        return Iterate(x_adv.clamp(0, 1) if self.clipped else x_adv, clean)


@final
@dataclass(frozen=True, kw_only=True)
class VirtualAdversarial(Defense):
    """Learns to be right on clean images and to predict the same in the direction where predictions change most.

    The direction needs no labels. The prediction for the clean image is the target: no gradient flows through it.
    """

    eps: float = 2.0  # l2 radius, in pixel units
    weight: float = 1.0  # of the divergence: alpha of the paper
    steps: int = 1  # power iterations
    probe: float = 1e-2  # xi of the paper, in pixel units; much smaller ones drown in float32's rounding
    clipped: bool = True  # pixels stay in [0, 1]; in the paper they need not

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius("l2", self.eps)
        checks.at_least("weight", self.weight, 0, "a weight")
        checks.at_least("steps", self.steps, 1, "a number of power iterations")
        checks.at_least("probe", self.probe, 1e-12, "a length in pixel units")

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """Images at distance `eps` in the direction that changes the prediction most."""
        attack = PowerIteration(eps=self.eps, probe=self.probe, steps=self.steps, clipped=self.clipped)
        return search(attack, model, x, y, rng=rng, policy="last")

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the clean images and `weight` times KL(clean || adversarial), with the clean one fixed."""
        clean, adversarial = predict(model, x), predict(model, x_adv)
        divergence = kullback_leibler(clean.detach(), adversarial).mean()
        return functional.cross_entropy(clean, y) + self.weight * divergence
