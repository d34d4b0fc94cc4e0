"""Validation: how accurate the model is, clean and attacked, on examples that were kept out of the training."""

from __future__ import annotations

import numpy as np

from orchestrator.backend import Backend, Handle
from orchestrator.recipe import Recipe
from workers import schedule
from workers.judge import JudgeTask


def validate(recipe: Recipe, examples: int, backend: Backend, weights: Handle) -> dict[str, float]:
    """Clean and robust accuracy of `weights` on the validation division of `examples` training examples.

    The robust accuracy is of the first `validation.examples` of it, the clean one of these and more, up to
    `validation.clean`, or of all. Pieces are as large as the training's shards, so the figures do not depend on the
    number of workers.
    """
    held_out = schedule.divide(examples, recipe.validation.share, recipe.seed).validation
    if not len(held_out):
        return {}
    attacked = held_out[: recipe.validation.examples]
    others = held_out[len(attacked) : recipe.validation.clean or None]
    pieces = [(indices, True) for indices in _pieces(attacked, recipe.train.shard)]
    pieces += [(indices, False) for indices in _pieces(others, 8 * recipe.train.shard)]
    keys = []
    for number, (indices, attack) in enumerate(pieces):
        task = JudgeTask(
            part="train",
            indices=indices,
            attack=recipe.validation.attack if attack else None,
            label="validation",
            seed=recipe.seed,
            targets=0,
            keep=0,
        )
        keys.append(("validation", number))
        backend.submit(keys[-1], "judge", task, weights)
    judged = [result.report for result in backend.collect(keys)]
    clean = np.concatenate([j.predicted == j.label for j in judged])
    robust = np.concatenate([~j.success for j, (_, attack) in zip(judged, pieces, strict=True) if attack])
    return {"validation/clean_accuracy": float(clean.mean()), "validation/robust_accuracy": float(robust.mean())}


def _pieces(
    indices: np.ndarray[tuple[int], np.dtype[np.int64]], size: int
) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
