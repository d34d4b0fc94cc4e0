"""Everything that decides what a diagnosis finds. Its digest names the folder, so that nothing is ever mixed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from typing import Any, final

import torch
from torch import nn

from algorithms.balls import Norm
from algorithms.modes import evaluating
from algorithms.operations import operations
from orchestrator.budgets import Budget
from orchestrator.config import resolve
from workers.cache import Split

SHARD = 32  # examples a worker looks at in one call
FEWEST = 32  # examples, however costly the model


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is diagnosed, on what, and with which arithmetic."""

    budget: Budget
    norm: Norm
    eps: float
    examples: int  # the first so many of the test part
    entries: int  # pixels times channels of an image
    classes: int
    seed: int
    weights: str  # SHA-256 of the model's parameters and buffers
    model: Any  # the model's section of the recipe
    data: str  # SHA-256 of the test part
    device: str
    threads: int
    surrogates: dict[str, str]  # SHA-256 of the weights of other runs that `transfer` attacks, by their names
    shard: int = SHARD

    @property
    def digest(self) -> str:
        """SHA-256 of all of this and of the versions of torch and Sparring."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """The name of the diagnosis's folder."""
        return f"{self.budget.name}-{self.digest[:12]}"

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        versions = {"torch": torch.__version__, "sparring": metadata.version("sparring")}
        return {**resolve(self), "versions": versions}


def affordable(budget: Budget, network: nn.Module, split: Split) -> int:
    """How many examples the budget's work is enough for, a multiple of 32; 32 at least, even where it is not enough."""
    cost = forward_cost(network, split) * budget.passes
    most = int(budget.work / max(cost, 1.0)) // FEWEST * FEWEST
    return min(max(FEWEST, most), budget.examples, len(split))


def forward_cost(network: nn.Module, split: Split) -> float:
    """Floating-point operations of one image's forward pass."""
    with evaluating(network), torch.no_grad():
        return operations(lambda: network(torch.zeros(1, *split.shape)))
