"""What follows from a recipe alone: the work that the workers are told of, and the digest that names its bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from orchestrator.config import resolve
from orchestrator.recipe import Recipe
from workers.datasets import Dataset
from workers.messages import Work

# sections that no trained bit depends on
IRRELEVANT = ("name", "workers", "validation", "convergence", "evaluation", "tracking")


def work_of(recipe: Recipe) -> Work:
    """What the workers must know of a recipe."""
    return Work(
        seed=recipe.seed,
        dataset=located(recipe.dataset),
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
        precision=recipe.train.precision,
        reduction=recipe.train.reduction,
        average=recipe.train.average,
        replays=recipe.train.replays,
        label_smoothing=recipe.train.label_smoothing,
        weight_perturbation=recipe.train.weight_perturbation,
        device=recipe.workers.device,
        threads=recipe.workers.threads,
    )


def located(dataset: Dataset) -> Dataset:
    """The same data set with an absolute folder: workers may have been started in another one."""
    folder = getattr(dataset, "folder", "")
    if not folder:
        return dataset
    absolute: dict[str, Any] = {"folder": str(Path(folder).expanduser().resolve())}
    return dataclasses.replace(dataset, **absolute)  # type: ignore[type-var]


def digest_of(recipe: Recipe) -> str:
    """Names what decides the bits of a run: the same digest, the same weights."""
    resolved = resolve(recipe)
    decisive = {key: value for key, value in resolved.items() if key not in IRRELEVANT}
    decisive["train"] = {key: value for key, value in resolved["train"].items() if key != "checkpoint_every"}
    decisive["workers"] = {key: resolved["workers"][key] for key in ("device", "threads")}
    if recipe.train.reduction == "all-reduce":
        decisive["workers"]["trainers"] = recipe.workers.trainers
    decisive["share"] = resolved["validation"]["share"]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
