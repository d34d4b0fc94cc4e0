"""Models to evaluate, and models to make attacks on: found by a run's name, its folder or a checkpoint's path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from algorithms import companions
from algorithms.attacks import Attack
from orchestrator.config import stored_recipe
from orchestrator.folders import RunFolder
from orchestrator.recipe import Recipe
from orchestrator.weights import load_weights
from workers import runtime
from workers.cache import Split
from workers.companions import Surrogate
from workers.messages import Snapshot


class Target(NamedTuple):
    """A model, and the run that it comes from."""

    folder: RunFolder
    recipe: Recipe
    weights: Mapping[str, Tensor]


def find(target: str | Path, folder: str | Path = "runs") -> Target:
    """The model that a run's name in `folder`, its own folder or a checkpoint's path stands for."""
    path = Path(target)
    inside = path.is_file() and next((p for p in path.resolve().parents if (p / "recipe.json").is_file()), None)
    run = RunFolder(inside) if inside else RunFolder.find(target, folder)
    recipe = stored_recipe(run.recipe)
    return Target(run, recipe, load_weights(path if inside else run))


def surrogates_of(attacks: Iterable[Attack], beside: RunFolder) -> dict[str, Target]:
    """The models that attacks are made on, by the names that they have for them.

    Names are those of runs in the same folder as `beside`. Raises ValueError for one that there is not.
    """
    names = sorted({companions.surrogate_of(attack) for attack in attacks} - {""})
    try:
        return {name: find(name, beside.path.parent) for name in names}
    except ValueError as error:
        raise ValueError(f"surrogate: {error}") from error


def network_of(target: Target, split: Split) -> nn.Module:
    """The network for images like those of `split`, in evaluation mode. Raises ValueError if weights do not fit."""
    model = runtime.build(target.recipe.model, split.shape, len(split.classes), target.recipe.seed)
    try:
        model.load_state_dict(dict(target.weights))
    except RuntimeError as error:
        raise ValueError(f"{target.folder.path}: these weights do not fit the model of the recipe: {error}") from error
    return model.eval()


def snapshot_of(target: Target, split: Split) -> Snapshot:
    """The weights as workers load them. Raises ValueError as `network_of` does."""
    return runtime.snapshot(network_of(target, split), 0)


def surrogate_from(target: Target, split: Split) -> Surrogate:
    """A model to make attacks on, as workers build it. Raises ValueError if it is for other images or classes."""
    try:
        return Surrogate(target.recipe.model, snapshot_of(target, split))
    except ValueError as error:
        shape, classes = "x".join(map(str, split.shape)), len(split.classes)
        raise ValueError(f"surrogate: a model for {classes} classes of {shape} images is needed; {error}") from error
