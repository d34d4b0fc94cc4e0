"""WasserTrain (Zhao et al. 2022, https://ieeexplore.ieee.org/document/9747294, equation 10 and algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.search import Record, search
from algorithms.tensors import Images, Labels


@final
@dataclass(frozen=True, kw_only=True)
class WasserTrain(Defense):
    """Learns from adversarial and clean images together, the adversarial ones from a ball that grows until they fool.

    The default radii are the paper's for MNIST: 0.1, and 1.4 times more every 5 steps, up to 2.07 after 50. An example
    leaves the attack as soon as it fools the model, so strong models meet larger radii and weak ones cost fewer steps.
    For CIFAR-10 Wong et al. (2019) take 0.01 and 1.5. The rival, adversarial training with projected Sinkhorn
    iterations, is `adversarial` with the attack `wasserstein_pgd`, the same radii and `keep = "first success"`.
    """

    attack: Attack = field(default_factory=lambda: WasserAttack(eps=0.1, growth=1.4, every=5, steps=50))
    adversarial_weight: float = 0.7  # share of the loss on adversarial images; the rest is on clean ones (omega)

    def __post_init__(self) -> None:
        """Raises ValueError for a share outside [0, 1]."""
        checks.between("adversarial_weight", self.adversarial_weight, 0, 1, "a share of the loss")

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The first images that fool the model, and of those that do not, the ones with the highest loss."""
        return search(self.attack, model, x, y, rng=rng, policy="first success")

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on both, mixed by `adversarial_weight`."""
        adversarial = functional.cross_entropy(predict(model, x_adv), y)
        clean = functional.cross_entropy(predict(model, x), y)
        return self.adversarial_weight * adversarial + (1 - self.adversarial_weight) * clean
