"""A published table made again: every model of a study trained and measured, ours beside what the paper prints.

What is finished stays: a run that is complete is not trained again, an evaluation that is complete is read. So the same
command goes on where it was interrupted, and studies that have a model in common train it once.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from orchestrator import provenance, several, tables
from orchestrator.backend import open_cluster
from orchestrator.config import resolve
from orchestrator.evaluation import evaluate
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.history import history
from orchestrator.listener import Listener, Silent
from orchestrator.recipe import Evaluation
from orchestrator.reports import rendered
from orchestrator.run import finished_run, train
from orchestrator.study import TRAINING, Cell, Column, Line, Study, cells_of, load_study
from orchestrator.tables import Entry, Reproduction
from orchestrator.tracking import Tracker

ID_SECONDS = 30.0  # that MLflow may take to give the study's run an id
TAKE: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda v: v[-1],
    "mean": statistics.fmean,
    "total": sum,
    "largest": max,
}


def reproduce(
    path: str | Path,
    budget: str = "reduced",
    overrides: tuple[str, ...] = (),
    *,
    parallel: int = 1,
    listener: Listener = Silent(),  # noqa: B008 - it keeps nothing
) -> Reproduction:
    """Trains and measures every model of a study; `parallel` of them at a time.

    Raises ValueError, before any work, for a study, a budget or a recipe that cannot be.
    """
    study = load_study(path)
    if budget not in study.budgets:
        raise ValueError(f"{path}: no budget {budget!r}; it has: {', '.join(study.budgets)}")
    chosen = study.budgets[budget]
    cells = cells_of(study, path, chosen, overrides)
    tracking = cells[0].recipe.tracking
    folder = RunFolder(Path(tracking.folder).resolve() / "studies" / f"{Path(path).stem}-{budget}")
    described = {"study": resolve(study), "budget": budget, "overrides": list(overrides)}
    with ExitStack() as stack:
        stack.enter_context(open_cluster(cells[0].recipe.workers, listener))
        tracker = stack.enter_context(Tracker.open(folder, tracking, described, listener))
        tracker.tags(provenance.title("study", f"{study.paper}, {budget}: {study.about}"))
        parent, first = _id_of(tracker), _first(study, chosen.examples)
        cells = [under(cell, parent, first or cell.recipe.evaluation) for cell in cells]
        keys = [(cell.row.title, cell.seed) for cell in cells]
        runs = dict(zip(keys, several.each("training", _trained, cells, parallel, listener), strict=True))
        tasks = [Task(runs[key], _asked(study, key[1], runs, chosen.examples)) for key in keys]
        found = dict(zip(keys, several.each("measuring", _measured, tasks, parallel, listener), strict=True))
        entries = {row.title: entries_of(study, row, found, chosen.seeds) for row in study.rows}
        names = {row.title: [Path(runs[row.title, s]).name for s in chosen.seeds] for row in study.rows}
        result = Reproduction(study, budget, chosen.seeds, entries, names, folder.path, tracker.url)
        _publish(result, tracker)
    return result


class Task(NamedTuple):
    """A trained model and how it is to be measured."""

    folder: str
    evaluations: dict[str, Evaluation]


Figures = dict[str, dict[str, list[float]]]  # by evaluation, or "training", and name: values in their order
Key = tuple[str, int]


def under(cell: Cell, parent: str, evaluation: Evaluation) -> Cell:
    """The cell, its run shown in MLflow under the study's, and at its end evaluated as the study wants it."""
    tracking = dataclasses.replace(cell.recipe.tracking, parent=parent)
    recipe = dataclasses.replace(cell.recipe, tracking=tracking, evaluation=evaluation)
    return dataclasses.replace(cell, recipe=recipe)


def _id_of(tracker: Tracker) -> str:
    """The id of the study's run in MLflow, or nothing if the server does not answer in time."""
    deadline = time.monotonic() + ID_SECONDS
    while not tracker.run_id and time.monotonic() < deadline:
        time.sleep(0.1)
    return tracker.run_id


def _first(study: Study, most: int) -> Evaluation | None:
    """The study's first evaluation that needs no other model: each run's own, so that none is made for nothing."""
    alone = (evaluation for evaluation in study.evaluations.values() if not evaluation.surrogate)
    return next((_limited(evaluation, most) for evaluation in alone), None)


def _limited(evaluation: Evaluation, most: int) -> Evaluation:
    """The evaluation of as many examples at most; 0: of all."""
    return dataclasses.replace(evaluation, examples=min(filter(None, (most, evaluation.examples)), default=0))


def _asked(study: Study, seed: int, runs: dict[Key, str], most: int) -> dict[str, Evaluation]:
    """The study's evaluations for a model; a surrogate that is called like a row is that row's model."""
    asked = {}
    for name, evaluation in study.evaluations.items():
        other = Path(runs.get((evaluation.surrogate, seed), evaluation.surrogate)).name
        asked[name] = dataclasses.replace(_limited(evaluation, most), surrogate=other)
    return asked


def _trained(cell: Cell, listener: Listener) -> str:
    """The folder of a model's finished run."""
    folder = finished_run(cell.recipe) or train(cell.recipe, listener=listener).folder
    return str(folder.path)


def _measured(task: Task, listener: Listener) -> Figures:
    """What the training recorded, and what the evaluations find."""
    found: Figures = {TRAINING: {k: [v for _, v in s] for k, s in history(RunFolder(Path(task.folder))).series.items()}}
    for name, evaluation in task.evaluations.items():
        outcome = evaluate(task.folder, evaluation, listener=listener)
        found[name] = {_plain(key, outcome.suite, evaluation): [value] for key, value in outcome.metrics().items()}
    return found


def _plain(key: str, suite: str, evaluation: Evaluation) -> str:
    """A figure's name without that of its suite, nor that of the run that the attacks were made on."""
    return key.removeprefix(f"{suite}/").removesuffix(f"_from_{evaluation.surrogate}")


def entries_of(study: Study, row: Line, found: dict[Key, Figures], seeds: tuple[int, ...]) -> dict[str, Entry]:
    """A row of the table, by the columns' titles, from what was found for each row and seed."""
    entries = {}
    for column in study.columns:
        values = [_value(column, found, (row.title, seed)) for seed in seeds]
        ours = tuple(column.scale * value for value in values if value is not None)
        entries[column.title] = Entry(ours, row.published.get(column.title))
    return entries


def _value(column: Column, found: dict[Key, Figures], key: Key) -> float | None:
    """A column's figure of one model, beside that of another row where the column says so; None: not measured."""
    values = found[key].get(column.of, {}).get(column.figure)
    if not values:
        return None
    value = TAKE[column.take](values[: max(1, round(column.until * len(values)))])
    if not column.over:
        return value
    other = _value(dataclasses.replace(column, over=""), found, (column.over, key[1]))
    return value / other if other else None


def _publish(result: Reproduction, tracker: Tracker) -> None:
    """Writes the table and its page, and logs both."""
    write_json(result.folder / "table.json", tables.plain(result))
    write_atomically(result.folder / "study.html", rendered("study.html", tables.page(result)).encode())
    for file in ("table.json", "study.html"):
        tracker.artifact(result.folder / file)
