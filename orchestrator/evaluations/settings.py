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

from algorithms import companions
from algorithms.balls import Geometry
from orchestrator.config import resolve
from orchestrator.recipe import Recipe
from orchestrator.suites import Suite
from workers.cache import Split, open_split

SHARD = 128  # examples a worker attacks at a time; the last bits depend on it, the number of workers they do not


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, on what, and with which arithmetic."""

    suite: Suite
    norm: Geometry
    eps: float
    examples: int  # the first so many of the test part
    entries: int  # pixels times channels of an image
    seed: int
    weights: str  # SHA-256 of the model's parameters and buffers
    model: Any  # the model's section of the recipe
    data: str  # SHA-256 of the test part
    surrogates: Mapping[str, Any]  # by the name that the suite has for a run: its model and the digest of its weights
    guides: str  # SHA-256 of the training part, where images that guide attacks come from; empty: there are none
    device: str
    threads: int
    lipschitz: float = 0.0  # of the model, where radii are certified; 0: they are not
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


def settings_of(recipe: Recipe, suite: Suite, split: Split, weights: str, surrogates: Mapping[str, Any]) -> Settings:
    """The settings of the evaluation that a recipe asks for, by a suite.

    `split` is the test part, `weights` the digest of the model's, and `surrogates` what `Settings` has of them.
    """
    asked = recipe.evaluation
    channels, height, width = split.shape
    guided = any(companions.guides_of(entry.attack) for entry in suite.attacks)
    return Settings(
        suite=suite,
        norm=asked.norm,
        eps=asked.eps,
        examples=min(asked.examples or len(split), len(split)),
        entries=channels * height * width,
        seed=recipe.seed,
        weights=weights,
        model=resolve(recipe.model),
        data=split.digest,
        surrogates=surrogates,
        guides=open_split(recipe.dataset, "train").digest if guided else "",
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
