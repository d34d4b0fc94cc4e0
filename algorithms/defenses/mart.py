"""Misclassification-aware training: MART (Wang et al. 2020, https://openreview.net/forum?id=rklOg6EFwS, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.divergences import kullback_leibler
from algorithms.gradients import predict
from algorithms.search import Policy, Record, search
from algorithms.tensors import Images, Labels, Logits, PerRow


@final
@dataclass(frozen=True, kw_only=True)
class Mart(Defense):
    """Learns from adversarial examples, and asks for most stability where clean ones are misclassified."""

    attack: Attack = field(default_factory=PGD)
    weight: float = 5.0  # lambda of the paper: of the divergence
    keep: Policy = "last"  # which point of the attack is learnt from

    def __post_init__(self) -> None:
        """Raises ValueError for a negative weight."""
        checks.at_least("weight", self.weight, 0, "a weight")

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The attack's examples."""
        return search(self.attack, model, x, y, rng=rng, policy=self.keep)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Boosted cross-entropy on the adversarial images and `weight` times a divergence; gradients flow through all.

        The divergence is KL(clean || adversarial) times the probability that the clean image gives to wrong classes.
        """
        clean, adversarial = predict(model, x), predict(model, x_adv)
        unsure = 1 - functional.softmax(clean, dim=1).gather(1, y.unsqueeze(1)).squeeze(1)
        stability = kullback_leibler(clean, adversarial) * unsure
        return (boosted_cross_entropy(adversarial, y) + self.weight * stability).mean()


def boosted_cross_entropy(logits: Logits, y: Labels) -> PerRow:
    """-log p(y) - log(1 - the largest probability of another class)."""
    rival = logits.scatter(1, y.unsqueeze(1), -torch.inf).argmax(1, keepdim=True)
    all_but_rival = logits.scatter(1, rival, -torch.inf)
    spared = logits.logsumexp(1) - all_but_rival.logsumexp(1)  # -log(1 - p(rival)), without the subtraction
    return functional.cross_entropy(logits, y, reduction="none") + spared
