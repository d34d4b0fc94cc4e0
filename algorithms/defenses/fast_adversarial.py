"""Fast adversarial training (Wong et al. 2020, https://arxiv.org/abs/2001.03994, Algorithm 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.search import Record, search
from algorithms.tensors import Images, Labels


@final
@dataclass(frozen=True, kw_only=True)
class FastAdversarial(Defense):
    """Learns from one long step from a random start: the price of training is about doubled, not multiplied by ten.

    With large radii or long training it may overfit to its own step: robustness against PGD then falls to zero from one
    epoch to the next, which a validation with PGD shows.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    stride: float = 1.25  # length of the step in radii

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("stride", self.stride, 0, "a length in radii")

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """Examples after the step, back in the ball; one gradient each."""
        attack = PGD(norm=self.norm, eps=self.eps, step_size=self.stride * self.eps, steps=1)
        return search(attack, model, x, y, rng=rng, policy="last")

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the adversarial images."""
        return functional.cross_entropy(predict(model, x_adv), y)
