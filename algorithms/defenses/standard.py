"""Training on clean examples: empirical risk minimisation, what every defense is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.search import Record, unperturbed
from algorithms.tensors import Images, Labels


@final
@dataclass(frozen=True, kw_only=True)
class Standard(Defense):
    """Learns from the clean examples alone."""

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The clean images, at no cost."""
        return unperturbed(x)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the clean images."""
        return functional.cross_entropy(predict(model, x), y)
