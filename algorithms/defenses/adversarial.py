"""Adversarial training (Madry et al. 2018, https://arxiv.org/abs/1706.06083, equation 2.1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.search import Policy, Record, search
from algorithms.tensors import Images, Labels


@final
@dataclass(frozen=True, kw_only=True)
class Adversarial(Defense):
    """Learns from adversarial examples, or from a mixture of them and the clean ones.

    With `clean_weight = 0.5` and FGSM this is the mixture of Goodfellow et al. (2015, https://arxiv.org/abs/1412.6572).
    With FGSM as the first of two it is that of Wang et al. (2019, https://arxiv.org/abs/2112.08304, Figure 3).
    """

    attack: Attack = field(default_factory=PGD)
    first: Attack | None = None  # another one, weaker as a rule, for the beginning of the training
    until: float = 0.0  # share of the training that belongs to `first`
    clean_weight: float = 0.0  # share of the clean loss; the rest is on adversarial examples
    keep: Policy = "highest loss"  # which point of the attack is learnt from
    progress: float = 0.0  # how far the training has come, 0 to 1; a run sets it

    def __post_init__(self) -> None:
        """Raises ValueError for shares outside [0, 1], and for a share that no attack is there for."""
        checks.between("until", self.until, 0, 1, "a share of the training")
        checks.between("progress", self.progress, 0, 1, "a share of the training")
        if (self.first is None) != (self.until == 0):
            raise ValueError("until: a share of the training for the attack `first`; neither, or both of them")
        checks.between("clean_weight", self.clean_weight, 0, 1, "a share of the loss")

    def at(self, progress: float) -> Self:
        """The same with the attack of that time."""
        return self if self.first is None else replace(self, progress=progress)

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The attack's examples."""
        attack = self.attack if self.first is None or self.progress >= self.until else self.first
        return search(attack, model, x, y, rng=rng, policy=self.keep)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the adversarial images, mixed with that on the clean ones by `clean_weight`."""
        adversarial = functional.cross_entropy(predict(model, x_adv), y)
        if self.clean_weight == 0:
            return adversarial
        clean = functional.cross_entropy(predict(model, x), y)
        return self.clean_weight * clean + (1 - self.clean_weight) * adversarial
