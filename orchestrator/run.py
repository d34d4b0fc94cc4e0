"""A training run from its recipe to its report: what `sparring train` does."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from orchestrator import provenance, signals, stability
from orchestrator.addresses import shareable
from orchestrator.backend import open_backend, open_cluster
from orchestrator.checkpoints import Checkpoints
from orchestrator.config import resolve, stored_recipe
from orchestrator.convergence import write_plots
from orchestrator.evaluation import measure, prepare, publish
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.targets import Target
from orchestrator.folders import RunFolder, locked, write_json
from orchestrator.listener import Listener, Silent
from orchestrator.loop import Loop
from orchestrator.plan import digest_of, precision_of, work_of
from orchestrator.recipe import Recipe, Tracking
from orchestrator.recorder import STAGE, Recorder
from orchestrator.reports import write_report
from orchestrator.tracking import Tracker
from orchestrator.weights import load_model, load_weights, save_weights
from workers import runtime, schedule
from workers.cache import open_split
from workers.messages import Work
from workers.movement import Movement


@final
@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: RunFolder
    metrics: dict[str, float]  # of the last step and the last epoch
    outcome: Outcome  # of the evaluation
    tracking_url: str  # where MLflow shows it, or the command that does
    resumed: bool


class Stage(NamedTuple):
    """What the parts of a run share."""

    recipe: Recipe
    folder: RunFolder
    examples: int  # in the training part
    listener: Listener
    tracker: Tracker


def train(recipe: Recipe | None = None, *, resume: str | None = None, listener: Listener | None = None) -> Run:
    """Trains and evaluates a recipe's model; `resume` names the run to go on with, by name or folder.

    Raises ValueError for what a user can get wrong, before any work, and `Interrupted` after Ctrl-C, with a checkpoint.
    """
    listener = listener or Silent()
    folder, recipe = find_run(recipe, resume)
    examples = check(work_of(recipe))
    prepare(recipe, folder)
    with locked(folder), signals.asked_to_stop(listener) as stop, open_cluster(recipe.workers, listener):
        resumed = folder.recipe.exists()
        listener.say(f"{'going on with' if resumed else 'starting'} run {folder.name}")
        public = resolve(shareable(recipe))
        write_json(folder.recipe, public)
        with Tracker.open(folder, recipe.tracking, public, listener) as tracker:
            tracker.tags(provenance.title("training", provenance.described(public)))
            stage = Stage(recipe, folder, examples, listener, tracker)
            metrics = train_model(stage, stop)
            outcome = conclude(stage, stop)
            write_json(folder.summary, {"metrics": metrics})
        return Run(folder, metrics, outcome, tracker.url, resumed)


def find_run(recipe: Recipe | None, resume: str | None) -> tuple[RunFolder, Recipe]:
    """The folder to work in, and the recipe to follow, its precision settled when the run began."""
    if resume is not None:
        found = RunFolder.find(resume, recipe.tracking.folder if recipe else Tracking().folder)
        return found, stored_recipe(found.recipe)
    if recipe is None:
        raise ValueError("train: a recipe, or the name of a run to resume")
    folder = folder_for(recipe)
    return folder, settled(recipe, folder)


def settled(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe with the precision that its run has begun with, on whatever machine, or that this machine gives it."""
    begun = folder.recipe.exists() and recipe.train.precision == "auto"
    precision = precision_of(stored_recipe(folder.recipe) if begun else recipe)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision=precision))


def folder_for(recipe: Recipe) -> RunFolder:
    """Where the recipe's run lives: the unfinished run of the same recipe if there is one, else a new folder.

    So the same command, given again after a crash, goes on with the run that it began.
    """
    return next(folder for folder in _folders(recipe) if not folder.summary.exists())


def finished_run(recipe: Recipe) -> RunFolder | None:
    """The first finished run of the same recipe, if there is one."""
    folder = next(_folders(recipe))
    return folder if folder.summary.exists() else None


def _folders(recipe: Recipe) -> Iterator[RunFolder]:
    """Where runs of a recipe live, the first one first."""
    base = Path(recipe.tracking.folder).resolve() / f"{recipe.name}-{digest_of(recipe)[:8]}"
    yield RunFolder(base)
    for number in itertools.count(2):
        yield RunFolder(base.with_name(f"{base.name}-{number}"))


def check(work: Work) -> int:
    """Raises ValueError for data, a model, an update of it, a defense or a batch that cannot be.

    Returns how many training examples there are.
    """
    split = open_split(work.dataset, "train")
    Movement("", runtime.build(work.model, split.shape, len(split.classes), work.seed), work.update)
    runtime.companions(work, split.shape, len(split.classes))
    schedule.steps_per_epoch(work, len(split))
    return len(split)


def train_model(stage: Stage, stop: Callable[[], bool]) -> dict[str, float]:
    """Runs the loop to its end, unless it was there before, and writes the weights to keep."""
    recipe, folder, examples, listener, tracker = stage
    recorder = Recorder(recipe, examples, folder, tracker, listener)
    if folder.model.exists():
        return recorder.latest
    work = work_of(recipe)
    with open_backend(recipe.workers, work, listener) as backend:
        loop = Loop(work, examples, backend, Checkpoints(folder.checkpoints, listener), digest_of(recipe))
        recorder.backend = backend
        write_json(folder.plan, {"steps": loop.steps, "steps_per_epoch": loop.per_epoch})
        listener.begin(STAGE, loop.steps, "steps")
        try:
            weights = backend.fetch(loop.run(recorder, listener, recipe.train.checkpoint_every, stop))
        finally:
            listener.end(STAGE)
    save_weights(folder, recipe, weights)
    stability.publish(folder, tracker)
    return recorder.latest


def conclude(stage: Stage, stop: Callable[[], bool]) -> Outcome:
    """Evaluates the finished model, and logs it, its figures and its pictures."""
    recipe, folder, _, listener, tracker = stage
    tracker.model(load_model(folder, recipe), open_split(recipe.dataset, "test").images(np.arange(2)).numpy())
    outcome = measure(Target(folder, recipe, load_weights(folder)), listener, stop)
    for path in write_plots(folder):
        tracker.artifact(path, folder.convergence.name)
    write_report(folder)
    publish(folder, outcome, tracker)
    return outcome
