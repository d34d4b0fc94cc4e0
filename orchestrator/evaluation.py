"""Robust accuracy of a model: a suite of attacks over the test part, on the attackers of a backend.

The driver sees rows, never images. What is finished is on the disk, in a folder whose name depends on everything that
decides the figures, so the same command goes on where it was interrupted, and once more gives the same answer at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from algorithms.control.certificate import Certificate, certify
from orchestrator.backend import open_backend
from orchestrator.config import resolve
from orchestrator.evaluations.drawing import figures_of
from orchestrator.evaluations.outcome import Outcome, table_and_curves
from orchestrator.evaluations.parts import Parts, write_images, write_rows
from orchestrator.evaluations.settings import Settings, digest_of, settings_of
from orchestrator.evaluations.stages import Crew, Stages
from orchestrator.evaluations.targets import Target, find, network_of, snapshot_of, surrogate_from, surrogates_of
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.listener import Listener, Silent
from orchestrator.plan import work_of
from orchestrator.plots import png
from orchestrator.recipe import Evaluation, Recipe, Workers
from orchestrator.reports import write_report
from orchestrator.suites import Suite, load_suite
from orchestrator.tracking import Tracker
from orchestrator.weights import fresh_model
from workers.cache import Split, open_split

PATIENCE = 30.0  # seconds that a tracking server may take


def evaluate(
    target: str | Path,
    asked: Evaluation | None = None,
    *,
    workers: Workers | None = None,
    listener: Listener = Silent(),  # noqa: B008 - it keeps nothing
) -> Outcome:
    """Evaluates a run, given by name or folder, or a checkpoint of it; without `asked`, as its recipe says.

    Raises ValueError for a run or a suite that cannot be used.
    """
    found = find(target)
    evaluation, workers = asked or found.recipe.evaluation, workers or found.recipe.workers
    recipe = dataclasses.replace(found.recipe, evaluation=evaluation, workers=workers)
    outcome = measure(found._replace(recipe=recipe), listener)
    write_report(found.folder)
    if found.folder.records.is_dir():
        _tell(found, outcome, listener)
    return outcome


def publish(folder: RunFolder, outcome: Outcome, tracker: Tracker) -> None:
    """Adds an evaluation to its run in MLflow: figures as metrics; rows, plots and the run's page as artifacts."""
    place = f"evaluations/{outcome.folder.name}"
    tracker.metrics(place, 0, outcome.metrics())
    for path in (
        outcome.parquet,
        outcome.images,
        *sorted(outcome.folder.glob("*.json")),
        *sorted(outcome.folder.glob("*.png")),
    ):
        tracker.artifact(path, place)
    tracker.artifact(folder.report)


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
    suite, surrogates = prepare(target.recipe, target.folder)
    others = {name: about(other) for name, other in surrogates.items()}
    certificate = certificate_of(target, split)
    settings = settings_of(target.recipe, suite, split, digest_of(target.weights), others)
    settings = dataclasses.replace(settings, lipschitz=certificate.lipschitz)
    folder = target.folder.evaluations / settings.folder
    outcome = Outcome.read(folder)
    if outcome is not None:
        listener.say(f"this evaluation is finished already: {folder}")
        return outcome
    taken = snapshot_of(target, split)
    write_json(folder / "settings.json", settings.plain())
    parts = Parts(folder / "parts")
    with open_backend(target.recipe.workers, work_of(target.recipe), listener, training=False) as backend:
        shared = {name: backend.share(surrogate_from(other, split)) for name, other in surrogates.items()}
        crew = Crew(backend, backend.share(taken), shared)
        stages = Stages(settings, parts, crew, listener, stop)
        stages.run()
    return _concluded(target, settings, stages, (split, certificate))


def prepare(recipe: Recipe, folder: RunFolder) -> tuple[Suite, dict[str, Target]]:
    """The suite that a recipe asks for, and the models that its attacks are made on, by their names.

    Raises ValueError for what is wrong or missing, without any work.
    """
    asked = recipe.evaluation
    suite = load_suite(asked.suite, asked.norm, asked.eps, asked.surrogate)
    if asked.certify:
        certified(fresh_model(recipe), open_split(recipe.dataset, "test"))
    return suite, surrogates_of([entry.attack for entry in suite.attacks], folder)


def certificate_of(target: Target, split: Split) -> Certificate:
    """The bound that radii follow from, where the recipe wants them certified; else one of 0, without gains."""
    asked = target.recipe.evaluation.certify
    return certified(network_of(target, split), split) if asked else Certificate(0.0, {})


def certified(model: nn.Module, split: Split) -> Certificate:
    """The bound for images like those of `split`. Raises ValueError for a model that has a layer of unknown gain."""
    try:
        return certify(model, split.shape)
    except ValueError as error:
        raise ValueError(f"certify: {error}") from error


def about(surrogate: Target) -> dict[str, Any]:
    """What of a surrogate decides figures."""
    return {"model": resolve(surrogate.recipe.model), "weights": digest_of(surrogate.weights)}


def _concluded(target: Target, settings: Settings, stages: Stages, known: tuple[Split, Certificate]) -> Outcome:
    """Writes rows, images, plots and figures, and then drops the parts."""
    split, certificate = known
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
        gains=certificate.gains,
        folder=folder,
    )
    write_rows(outcome.parquet, rows)
    write_images(outcome.images, stages.kept)
    for name, figure in figures_of(outcome).items():
        write_atomically(folder / f"{name}.png", png(figure))
    outcome.write()
    stages.parts.remove()
    return outcome
