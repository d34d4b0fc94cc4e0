"""Is a model's robustness real, or are its gradients masked? Checks on the attackers of a backend, and a verdict.

Like an evaluation, a diagnosis goes on where it was interrupted, and once more gives the same answer at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import nn

from algorithms.balls import Norm
from orchestrator.backend import open_backend
from orchestrator.budgets import Budget, load_budget
from orchestrator.config import resolve
from orchestrator.diagnoses import page
from orchestrator.diagnoses.outcome import Diagnosis, concluded, evidence
from orchestrator.diagnoses.settings import Settings, affordable
from orchestrator.diagnoses.stages import Room, Stages, remove, signs_for, write
from orchestrator.evaluation import PATIENCE
from orchestrator.evaluations.settings import digest_of
from orchestrator.evaluations.targets import Target, find, network_of, surrogate_from, surrogates_of
from orchestrator.folders import write_atomically, write_json
from orchestrator.listener import Listener, Silent
from orchestrator.plan import work_of
from orchestrator.plots import png
from orchestrator.recipe import Workers
from orchestrator.reports import write_report
from orchestrator.tracking import Tracker
from workers import runtime
from workers.cache import Split, open_split


def diagnose(
    target: str | Path,
    *,
    budget: str = "quick",
    norm: Norm | None = None,
    eps: float | None = None,
    examples: int | None = None,
    workers: Workers | None = None,
    listener: Listener = Silent(),  # noqa: B008 - it keeps nothing
) -> Diagnosis:
    """Diagnoses a run, given by name or folder, or a checkpoint of it; radius and norm are by default its recipe's.

    Raises ValueError for a run, a budget or a number that cannot be used.
    """
    found = find(target)
    evaluation = dataclasses.replace(
        found.recipe.evaluation,
        norm=norm or found.recipe.evaluation.norm,
        eps=found.recipe.evaluation.eps if eps is None else eps,
        examples=examples or 0,
    )
    recipe = dataclasses.replace(found.recipe, evaluation=evaluation, workers=workers or found.recipe.workers)
    diagnosis = examine(found._replace(recipe=recipe), budget, listener)
    if found.folder.records.is_dir():
        _tell(found, diagnosis, listener)
    write_report(found.folder)
    return diagnosis


def examine(target: Target, budget: str, listener: Listener, stop: Callable[[], bool] = lambda: False) -> Diagnosis:
    """The diagnosis of a target at its recipe's norm and radius; what is on the disk already is not done again.

    Raises Interrupted, between two shards, once `stop()` is true.
    """
    split = open_split(target.recipe.dataset, "test")
    network = network_of(target, split)
    chosen = load_budget(budget, norm_of(target), target.recipe.evaluation.eps)
    surrogates = surrogates_of([rival.attack for rival in chosen.rivals], target.folder)
    settings = settings_of(target, chosen, network, split, surrogates)
    folder = target.folder.diagnoses / settings.folder
    known = Diagnosis.read(folder)
    if known is not None:
        listener.say(f"this diagnosis is finished already: {folder}")
        return known
    write_json(folder / "settings.json", settings.plain())
    signs = signs_for(network)
    with open_backend(target.recipe.workers, work_of(target.recipe), listener, training=False) as backend:
        model = backend.share(runtime.snapshot(network, 0))
        shared = {name: backend.share(surrogate_from(other, split)) for name, other in surrogates.items()}
        stages = Stages(settings, Room(backend, model, shared, folder / "parts", listener, stop))
        stages.run(signs)
    diagnosis = concluded(settings, stages, signs, target.folder.name, folder)
    publish(diagnosis, stages)
    remove(folder / "parts")
    return diagnosis


def norm_of(target: Target) -> Norm:
    """The norm of the recipe. Raises ValueError for a Wasserstein ball, which the signs know nothing of."""
    norm = target.recipe.evaluation.norm
    if norm == "wasserstein":
        raise ValueError("norm: linf, l2, l1 or l0 for a diagnosis, not wasserstein; give --norm and --eps")
    return norm


def settings_of(
    target: Target, budget: Budget, network: nn.Module, split: Split, surrogates: dict[str, Target]
) -> Settings:
    """The settings of a target's diagnosis on the test part `split`."""
    asked = target.recipe.evaluation
    channels, height, width = split.shape
    return Settings(
        budget=budget,
        norm=norm_of(target),
        eps=asked.eps,
        examples=min(asked.examples or affordable(budget, network, split), len(split)),
        entries=channels * height * width,
        classes=len(split.classes),
        seed=target.recipe.seed,
        weights=digest_of(target.weights),
        model=resolve(target.recipe.model),
        data=split.digest,
        device=target.recipe.workers.device,
        threads=target.recipe.workers.threads,
        surrogates={name: digest_of(other.weights) for name, other in surrogates.items()},
    )


def publish(diagnosis: Diagnosis, stages: Stages) -> None:
    """Writes figures, plots and the page; the page last but one, for with both of them the diagnosis is finished."""
    columns = evidence(stages)
    write(diagnosis.folder / "columns.npz", columns)
    for name, figure in page.figures_of(diagnosis, columns).items():
        write_atomically(diagnosis.folder / f"{name}.png", png(figure))
    write_atomically(diagnosis.page, page.render(diagnosis, columns).encode())
    diagnosis.write()


def _tell(target: Target, diagnosis: Diagnosis, listener: Listener) -> None:
    """Adds a diagnosis to its run in MLflow: figures as metrics; rows, plots and the page as artifacts."""
    try:
        tracker = Tracker(target.folder, target.recipe.tracking, listener)
    except ValueError as error:
        listener.say(f"MLflow is not told of this diagnosis: {error}")
        return
    place = f"diagnoses/{diagnosis.folder.name}"
    try:
        tracker.metrics(place, 0, diagnosis.metrics())
        for path in sorted(diagnosis.folder.iterdir()):
            if path.suffix in (".json", ".npz", ".png", ".html"):
                tracker.artifact(path, place)
    finally:
        tracker.close(PATIENCE)
