"""Everything that decides the figures of an evaluation. Its digest names the folder, so that nothing is ever mixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, final

import torch
from torch import Tensor

from algorithms.balls import Norm
from orchestrator.config import resolve
from orchestrator.recipe import Recipe
from orchestrator.suites import Suite, load_suite
from workers.cache import Split

SHARD = 128  # examples a worker attacks at a time; the last bits depend on it, the number of workers they do not


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, on what, and with which arithmetic."""

    suite: Suite
    norm: Norm
    eps: float
    examples: int  # the first so many of the test part
    entries: int  # pixels times channels of an image
    seed: int
    weights: str  # SHA-256 of the model's parameters and buffers
    model: Any  # the model's section of the recipe
    data: str  # SHA-256 of the test part
    device: str
    threads: int
    shard: int = SHARD

    @property
    def digest(self) -> str:
        """SHA-256 of all of this and of the versions of torch and Sparring."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """The name of the evaluation's folder."""
        return f"{self.suite.name}-{self.digest[:12]}"

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        versions = {"torch": torch.__version__, "sparring": metadata.version("sparring")}
        return {**resolve(self), "versions": versions}


def settings_of(recipe: Recipe, split: Split, weights: str) -> Settings:
    """The settings of the evaluation that a recipe asks for, on the test part `split`, of these weights (a digest)."""
    asked = recipe.evaluation
    channels, height, width = split.shape
    return Settings(
        suite=load_suite(asked.suite, asked.norm, asked.eps),
        norm=asked.norm,
        eps=asked.eps,
        examples=min(asked.examples or len(split), len(split)),
        entries=channels * height * width,
        seed=recipe.seed,
        weights=weights,
        model=resolve(recipe.model),
        data=split.digest,
        device=recipe.workers.device,
        threads=recipe.workers.threads,
    )


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of parameters and buffers: their names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
