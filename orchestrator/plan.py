"""What follows from a recipe alone: the work that the workers are told of, and the digest that names its bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from algorithms.attacks import Attack
from algorithms.ode.solver import Solver
from orchestrator.config import resolve
from orchestrator.recipe import Recipe
from workers import runtime
from workers.datasets import Dataset
from workers.messages import Precision, Work

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
        precision=precision_of(recipe),
        reduction=recipe.train.reduction,
        average=recipe.train.average,
        replays=recipe.train.replays,
        label_smoothing=recipe.train.label_smoothing,
        weight_perturbation=recipe.train.weight_perturbation,
        device=recipe.workers.device,
        threads=recipe.workers.threads,
    )


def precision_of(recipe: Recipe) -> Precision:
    """What examples are made in: as the recipe says, or what is quickest here if its plug-ins can do with it."""
    if recipe.train.precision != "auto":
        return recipe.train.precision
    return "float32" if delicate(recipe.model) or delicate(recipe.defense) else runtime.quickest(recipe.workers.device)


def delicate(part: object) -> bool:
    """Whether bfloat16's three digits are too few for a plug-in, or for another one in it.

    They are for attacks that look for the smallest norm, and end where two classes are level within them, and for
    solvers whose steps follow an error that rounding drowns.
    """
    if (isinstance(part, Attack) and part.minimal) or (isinstance(part, Solver) and part.adaptive):
        return True
    inside = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
    return any(delicate(getattr(part, field.name)) for field in inside)


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
