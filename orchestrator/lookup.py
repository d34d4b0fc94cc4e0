"""Runs to compare, wherever they are: by name or folder here, by id or a query in MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator import addresses, tracking
from orchestrator.folders import RunFolder
from orchestrator.history import Series

if TYPE_CHECKING:
    from orchestrator.recipe import Tracking

MLFLOW_ID = re.compile(r"[0-9a-f]{32}")
WANTED = ("recipe.json", "evaluations", "convergence", "stability", "diagnoses")  # artifacts that a comparison needs
MOST = 200  # runs of a query


class Found(NamedTuple):
    """A run, and of one that was made elsewhere what MLflow knows of its training."""

    folder: RunFolder
    series: dict[str, Series]


def find_runs(names: Sequence[str], where: Tracking, metrics: Sequence[str]) -> list[Found]:
    """The runs that names, folders, MLflow ids or queries stand for, each once, in their order.

    What is not in `where.folder` is fetched from MLflow and kept there. Raises ValueError for what stands for no run.
    """
    found: dict[Path, Found] = {}
    for name in names:
        for one in _found(name, where, metrics):
            found.setdefault(one.folder.path, one)
    return list(found.values())


def _found(name: str, where: Tracking, metrics: Sequence[str]) -> list[Found]:
    try:
        return [Found(RunFolder.find(name, where.folder), {})]
    except ValueError:
        is_query = any(sign in name for sign in "=<>") or " like " in name.lower()
        if not is_query and not MLFLOW_ID.fullmatch(name):
            raise
    uri = addresses.resolve(where)
    with tracking.understood(addresses.secrets(uri)):
        client = tracking.load().MlflowClient(uri)
        runs = _asked(client, name, where.experiment) if is_query else [client.get_run(name)]
        return [_here(client, run, Path(where.folder), metrics) for run in runs]


def _asked(client: Any, query: str, experiment: str) -> list[Any]:
    """The runs of a query, oldest first. Raises ValueError where there is none."""
    known = client.get_experiment_by_name(experiment)
    runs = client.search_runs([known.experiment_id], query, max_results=MOST) if known else []
    if not runs:
        raise ValueError(f"{query!r}: no run of experiment {experiment!r} in MLflow is so")
    return sorted(runs, key=lambda run: run.info.start_time)


def _here(client: Any, run: Any, folder: Path, metrics: Sequence[str]) -> Found:
    """A run of MLflow's: its own folder if it was made here, else a copy of what a comparison needs."""
    name = str(run.data.tags.get("sparring.name", run.info.run_name))
    own = RunFolder(folder.resolve() / name)
    if _id_of(own) == run.info.run_id:
        return Found(own, {})
    copy = RunFolder(folder.resolve() / ".mlflow" / run.info.run_id / name)
    copy.path.mkdir(parents=True, exist_ok=True)
    there = {item.path for item in client.list_artifacts(run.info.run_id)}
    for wanted in WANTED:
        if wanted in there:
            client.download_artifacts(run.info.run_id, wanted, str(copy.path))
    return Found(copy, {metric: _series(client, run.info.run_id, metric) for metric in metrics})


def _id_of(folder: RunFolder) -> str:
    """What MLflow calls the run of a folder; empty if it is not known."""
    file = folder.records / "run.json"
    return str(json.loads(file.read_bytes()).get("run_id", "")) if file.is_file() else ""


def _series(client: Any, run_id: str, metric: str) -> Series:
    """What MLflow recorded of a metric: updates made, value."""
    return sorted((float(m.step + 1), float(m.value)) for m in client.get_metric_history(run_id, metric))
