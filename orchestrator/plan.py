"""What follows from a recipe alone: the work that the workers are told of, and the digest that names its bits."""

from __future__ import annotations

import hashlib
import json

from orchestrator.config import resolve
from orchestrator.recipe import Recipe
from workers.messages import Work

IRRELEVANT = ("name", "workers", "validation", "evaluation", "tracking")  # sections that no trained bit depends on


def work_of(recipe: Recipe) -> Work:
    """What the workers must know of a recipe."""
    return Work(
        seed=recipe.seed,
        dataset=recipe.dataset,
        augmentation=recipe.augmentation,
        model=recipe.model,
        defense=recipe.defense,
        update=recipe.update,
        validation=recipe.validation.share,
        epochs=recipe.train.epochs,
        batch=recipe.train.batch,
        shard=recipe.train.shard,
        lag=recipe.train.lag,
        exchange=recipe.train.exchange,
        average=recipe.train.average,
        device=recipe.workers.device,
        threads=recipe.workers.threads,
    )


def digest_of(recipe: Recipe) -> str:
    """Names what decides the bits of a run: the same digest, the same weights."""
    resolved = resolve(recipe)
    decisive = {key: value for key, value in resolved.items() if key not in IRRELEVANT}
    decisive["train"] = {key: value for key, value in resolved["train"].items() if key != "checkpoint_every"}
    decisive["workers"] = {key: resolved["workers"][key] for key in ("device", "threads")}
    decisive["share"] = resolved["validation"]["share"]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
