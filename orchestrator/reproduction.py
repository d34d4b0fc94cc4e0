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
from typing import TYPE_CHECKING, NamedTuple

from orchestrator import provenance, several, tables
from orchestrator.annotation.readers import read
from orchestrator.annotation.results import metrics
from orchestrator.annotation.sheet import NoneFellError, sheet_of
from orchestrator.backend import open_cluster
from orchestrator.config import resolve
from orchestrator.diagnosis import diagnose
from orchestrator.evaluation import evaluate
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.targets import find
from orchestrator.evaluations.thresholds import accuracy_at
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.history import history
from orchestrator.listener import Listener, Silent
from orchestrator.metrics import printable
from orchestrator.plots import last_layers, png
from orchestrator.recipe import Evaluation
from orchestrator.reports import drawn, rendered
from orchestrator.run import finished_run, train
from orchestrator.stability import spectra_in
from orchestrator.study import (
    TRAINING,
    Budget,
    Cell,
    Column,
    Examination,
    Labelling,
    Line,
    Study,
    cells_of,
    chosen,
    load_study,
)
from orchestrator.tables import Entry, Reproduction
from orchestrator.tracking import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    rows: tuple[str, ...] = (),
    parallel: int = 1,
    listener: Listener = Silent(),  # noqa: B008 - it keeps nothing
) -> Reproduction:
    """Trains and measures every model of a study, or those of the titles in `rows`, or of titles that begin so.

    As many as `parallel` at a time. Raises ValueError, before any work, for what cannot be.
    """
    study = chosen(load_study(path), rows)
    if budget not in study.budgets:
        raise ValueError(f"{path}: no budget {budget!r}; it has: {', '.join(study.budgets)}")
    spent = study.budgets[budget]
    cells = cells_of(study, path, spent, overrides)
    tracking = cells[0].recipe.tracking
    folder = RunFolder(Path(tracking.folder).resolve() / "studies" / f"{Path(path).stem}-{budget}")
    described = {"study": resolve(study), "budget": budget, "overrides": list(overrides)}
    with ExitStack() as stack:
        stack.enter_context(open_cluster(cells[0].recipe.workers, listener))
        tracker = stack.enter_context(Tracker.open(folder, tracking, described, listener))
        tracker.tags(provenance.title("study", f"{study.paper}, {budget}: {study.about}"))
        parent, first = _id_of(tracker), _first(study, spent)
        cells = [under(cell, parent, first or cell.recipe.evaluation) for cell in cells]
        keys = [(cell.row.title, cell.seed) for cell in cells]
        runs = dict(zip(keys, several.each("training", _trained, cells, parallel, listener), strict=True))
        tasks = [_task(study, key, runs, spent) for key in keys]
        found = dict(zip(keys, several.each("measuring", _measured, tasks, parallel, listener), strict=True))
        entries = {row.title: entries_of(study, row, found, spent.seeds) for row in study.rows}
        names = {row.title: [Path(runs[row.title, s]).name for s in spent.seeds] for row in study.rows}
        result = Reproduction(study, budget, spent.seeds, entries, names, folder.path, tracker.url)
        _publish(result, pictures(study, {row.title: runs[row.title, spent.seeds[0]] for row in study.rows}), tracker)
    return result


class Task(NamedTuple):
    """A trained model and how it is to be measured."""

    folder: str
    evaluations: dict[str, Evaluation]
    examinations: dict[str, Examination]
    labels: dict[str, Labelling]
    radii: list[Column]  # those that want an accuracy at a radius of their own


Figures = dict[str, dict[str, list[float]]]  # by evaluation, diagnosis or "training", and name: values in their order
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


def _first(study: Study, budget: Budget) -> Evaluation | None:
    """The study's first evaluation that needs no other model: each run's own, so that none is made for nothing."""
    return next((one for one in asked_of(study, 0, {}, budget).values() if not one.surrogate), None)


def _task(study: Study, key: Key, runs: dict[Key, str], budget: Budget) -> Task:
    """How the model of a row and a seed is to be measured."""
    _, seed = key
    return Task(
        folder=runs[key],
        evaluations=asked_of(study, seed, runs, budget),
        examinations=examinations_of(study, budget),
        labels=labelled_of(study, seed, runs, budget),
        radii=[column for column in study.columns if column.at],
    )


def asked_of(study: Study, seed: int, runs: dict[Key, str], budget: Budget) -> dict[str, Evaluation]:
    """The study's evaluations for a model; a surrogate that is called like a row is that row's model."""
    asked = {}
    for name, evaluation in study.evaluations.items():
        other = Path(runs.get((evaluation.surrogate, seed), evaluation.surrogate)).name
        suite = budget.shorter.get(name, evaluation.suite)
        count = fewer(budget.examples, evaluation.examples)
        asked[name] = dataclasses.replace(evaluation, suite=suite, surrogate=other, examples=count)
    return asked


def examinations_of(study: Study, budget: Budget) -> dict[str, Examination]:
    """The study's diagnoses under its budget."""
    return {
        name: dataclasses.replace(
            asked,
            budget=budget.shorter.get(name, asked.budget),
            examples=fewer(budget.examples, asked.examples),
        )
        for name, asked in study.diagnoses.items()
    }


def labelled_of(study: Study, seed: int, runs: dict[Key, str], budget: Budget) -> dict[str, Labelling]:
    """What the study wants labelled, a reader by the folder of its run."""
    return {
        name: dataclasses.replace(
            asked,
            suite=budget.shorter.get(name, asked.suite),
            images=fewer(budget.examples, asked.images),
            reader=runs.get((asked.reader, seed), ""),
        )
        for name, asked in study.labels.items()
    }


def fewer(one: int, other: int) -> int:
    """The smaller number of examples, where 0 stands for all."""
    return min(filter(None, (one, other)), default=0)


def _trained(cell: Cell, listener: Listener) -> str:
    """The folder of a model's finished run."""
    folder = finished_run(cell.recipe) or train(cell.recipe, listener=listener).folder
    return str(folder.path)


def _measured(task: Task, listener: Listener) -> Figures:
    """What the training recorded, and what the evaluations and diagnoses find."""
    found: Figures = {TRAINING: {k: [v for _, v in s] for k, s in history(RunFolder(Path(task.folder))).series.items()}}
    for name, evaluation in task.evaluations.items():
        outcome = evaluate(task.folder, evaluation, listener=listener)
        found[name] = {_plain(key, outcome.suite, evaluation): [value] for key, value in outcome.metrics().items()}
        found[name] |= _at_radii(outcome, evaluation, [column for column in task.radii if column.of == name])
    for name, asked in task.examinations.items():
        diagnosis = diagnose(
            task.folder,
            budget=asked.budget,
            norm=asked.norm,
            eps=asked.eps,
            examples=asked.examples or None,
            listener=listener,
        )
        head = f"diagnosis/{diagnosis.budget}/"
        found[name] = {key.removeprefix(head): [value] for key, value in diagnosis.metrics().items()}
    found |= {name: _labelled(task.folder, labelling, listener) for name, labelling in task.labels.items()}
    return found


def _labelled(folder: str, asked: Labelling, listener: Listener) -> dict[str, list[float]]:
    """What people and the reader say of a model's adversarial images; nothing where it has none."""
    try:
        sheet = sheet_of(find(folder), asked.suite, asked.attack, asked.images)
    except NoneFellError as error:
        listener.say(f"{Path(folder).name}: {error}")
        return {}
    found = {key.removeprefix("annotation/"): [value] for key, value in metrics(sheet).items()}
    if asked.reader:
        found |= {f"reader/{key}": [value] for key, value in read(sheet, find(asked.reader)).items()}
    return found


def _at_radii(outcome: Outcome, evaluation: Evaluation, columns: Sequence[Column]) -> dict[str, list[float]]:
    """The accuracies that columns want at radii of their own, where the evaluation knows them."""
    attacks = {_plain(f"accuracy/{printable(row.attack)}", "", evaluation): row.attack for row in outcome.table}
    known = [column for column in columns if column.figure in attacks]
    found = {column.key: accuracy_at(outcome, attacks[column.figure], column.at) for column in known}
    return {key: [value] for key, value in found.items() if value is not None}


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
    values = found[key].get(column.of, {}).get(column.key)
    if not values:
        return None
    value = TAKE[column.take](values[: max(1, round(column.until * len(values)))])
    beside = column.over or column.minus
    if not beside:
        return value
    other = _value(dataclasses.replace(column, over="", minus=""), found, (beside, key[1]))
    if column.minus:
        return None if other is None else value - other
    return value / other if other else None


def pictures(study: Study, runs: dict[str, str]) -> dict[str, Figure]:
    """The pictures that a study asks for, by name. `runs`: the folder of one run a row."""
    if "spectra" not in study.pictures:
        return {}
    kept = {title: spectra_in(RunFolder(Path(folder))) for title, folder in runs.items()}
    last = {title: list(spectra[0].values())[-1] for title, spectra in kept.items() if spectra is not None}
    return {"spectra": last_layers(last)} if last else {}


def _publish(result: Reproduction, shown: dict[str, Figure], tracker: Tracker) -> None:
    """Writes the table, its pictures and its page, and logs all."""
    write_json(result.folder / "table.json", tables.plain(result))
    for name, figure in shown.items():
        write_atomically(result.folder / f"{name}.png", png(figure))
        tracker.artifact(result.folder / f"{name}.png")
    page = tables.page(result, [drawn(figure, name) for name, figure in shown.items()])
    write_atomically(result.folder / "study.html", rendered("study.html", page).encode())
    for file in ("table.json", "study.html"):
        tracker.artifact(result.folder / file)
