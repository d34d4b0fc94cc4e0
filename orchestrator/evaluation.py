"""Robust accuracy of a model: a suite of attacks over the test part, on the attackers of a backend.

The driver sees rows, never images. What is finished is on the disk, in a folder whose name depends on everything that
decides the figures, so the same command goes on where it was interrupted, and once more gives the same answer at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from algorithms.balls import Norm
from orchestrator.backend import open_backend
from orchestrator.config import recipe_from
from orchestrator.evaluations.drawing import figures_of
from orchestrator.evaluations.outcome import Outcome, table_and_curves
from orchestrator.evaluations.parts import Parts, write_images, write_rows
from orchestrator.evaluations.settings import Settings, digest_of, settings_of
from orchestrator.evaluations.stages import Stages
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.listener import Listener, Silent
from orchestrator.plan import work_of
from orchestrator.plots import png
from orchestrator.recipe import Recipe, Workers
from orchestrator.reports import write_report
from orchestrator.tracking import Tracker
from orchestrator.weights import load_weights
from workers import runtime
from workers.cache import Split, open_split
from workers.messages import Snapshot

PATIENCE = 30.0  # seconds that a tracking server may take


class Target(NamedTuple):
    """A model to evaluate, and the run that it comes from."""

    folder: RunFolder
    recipe: Recipe
    weights: Mapping[str, Tensor]


def evaluate(
    target: str | Path,
    *,
    suite: str | None = None,
    norm: Norm | None = None,
    eps: float | None = None,
    examples: int | None = None,
    workers: Workers | None = None,
    listener: Listener = Silent(),  # noqa: B008 - it keeps nothing
) -> Outcome:
    """Evaluates a run, given by name or folder, or a checkpoint of it; what is left out is as in its recipe.

    Raises ValueError for a run, a suite or a number that cannot be used.
    """
    found = find(target)
    wanted = {"suite": suite, "norm": norm, "eps": eps, "examples": examples}
    given: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    evaluation = dataclasses.replace(found.recipe.evaluation, **given)
    recipe = dataclasses.replace(found.recipe, evaluation=evaluation, workers=workers or found.recipe.workers)
    outcome = measure(found._replace(recipe=recipe), listener)
    if found.folder.records.is_dir():
        _tell(found, outcome, listener)
    write_report(found.folder)
    return outcome


def publish(folder: RunFolder, outcome: Outcome, tracker: Tracker) -> None:
    """Adds an evaluation to its run in MLflow: figures as metrics; rows, plots and the run's page as artifacts."""
    place = f"evaluations/{outcome.folder.name}"
    tracker.metrics(place, 0, outcome.metrics())
    for path in (outcome.parquet, *sorted(outcome.folder.glob("*.json")), *sorted(outcome.folder.glob("*.png"))):
        tracker.artifact(path, place)
    tracker.artifact(write_report(folder))


def _tell(found: Target, outcome: Outcome, listener: Listener) -> None:
    """Sends an evaluation after the training. Where a training still sends, or the address is wrong, it is said."""
    try:
        tracker = Tracker(found.folder, found.recipe.tracking, listener)
    except ValueError as error:
        listener.say(f"MLflow is not told of this evaluation: {error}")
        return
    try:
        publish(found.folder, outcome, tracker)
    finally:
        tracker.close(PATIENCE)


def measure(target: Target, listener: Listener, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """The evaluation that the target's recipe asks for; what is on the disk already is not done again.

    Raises Interrupted, between two shards, once `stop()` is true.
    """
    split = open_split(target.recipe.dataset, "test")
    settings = settings_of(target.recipe, split, digest_of(target.weights))
    folder = target.folder.evaluations / settings.folder
    outcome = Outcome.read(folder)
    if outcome is not None:
        listener.say(f"this evaluation is finished already: {folder}")
        return outcome
    write_json(folder / "settings.json", settings.plain())
    parts = Parts(folder / "parts")
    with open_backend(target.recipe.workers, work_of(target.recipe), listener) as backend:
        model = backend.share(_snapshot(target, split))
        stages = Stages(settings, parts, (backend, model), listener, stop)
        stages.run()
    return _concluded(target, settings, stages, split)


def find(target: str | Path) -> Target:
    """The model that a run's name, its folder or a checkpoint's path stands for."""
    path = Path(target)
    inside = path.is_file() and next((p for p in path.resolve().parents if (p / "recipe.json").is_file()), None)
    folder = RunFolder(inside) if inside else RunFolder.find(target)
    recipe = recipe_from(json.loads(folder.recipe.read_text(encoding="utf-8")), str(folder.recipe))
    return Target(folder, recipe, load_weights(path if inside else folder))


def _snapshot(target: Target, split: Split) -> Snapshot:
    """The weights as workers load them. Raises ValueError if they are another model's."""
    model = runtime.build(target.recipe.model, split.shape, len(split.classes), target.recipe.seed)
    try:
        model.load_state_dict(dict(target.weights))
    except RuntimeError as error:
        raise ValueError(f"{target.folder.path}: these weights do not fit the model of the recipe: {error}") from error
    return runtime.snapshot(model, 0)


def _concluded(target: Target, settings: Settings, stages: Stages, split: Split) -> Outcome:
    """Writes rows, images, plots and figures, and then drops the parts."""
    folder = target.folder.evaluations / settings.folder
    rows = stages.rows()
    table, curves = table_and_curves(settings, rows)
    outcome = Outcome(
        run=target.folder.name,
        suite=settings.suite.name,
        norm=settings.norm,
        eps=settings.eps,
        examples=settings.examples,
        table=table,
        curves=curves,
        shown=settings.suite.shown,
        classes=split.classes,
        folder=folder,
    )
    write_rows(outcome.parquet, rows)
    write_images(outcome.images, stages.kept)
    for name, figure in figures_of(outcome).items():
        write_atomically(folder / f"{name}.png", png(figure))
    outcome.write()
    stages.parts.remove()
    return outcome
