"""A run in MLflow: parameters, metrics, tags, files and the finished model. The only file that imports mlflow.

Everything goes through a spool on disk and a thread that sends it, so training neither waits for the tracking server
nor notices when it goes away, and after a resume MLflow's run goes on with every step there exactly once. MLflow's own
asynchronous logging is not used: it loses data in silence.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, final

from orchestrator import addresses, database, packing, provenance
from orchestrator.addresses import Identity
from orchestrator.folders import RunFolder
from orchestrator.listener import Listener
from orchestrator.sender import Away, Refused, Sender, brief, pieces
from orchestrator.spool import Record, Spool, milliseconds, name

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from torch import nn

    from orchestrator.recipe import Tracking

Status = Literal["FINISHED", "FAILED", "KILLED"]
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})  # everything else may pass
TAG = "sparring.id"  # finds the run again if MLflow made it but its answer was lost
LONGEST = 6000  # characters of a parameter or a tag that MLflow takes
SETTINGS = {  # for MLflow's client; what the environment says already is left alone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the sender tries again itself, and looks first what has arrived
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; only the thread waits, and an upload of a model needs some
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
CHATTER = ("mlflow.store", "mlflow.tracking", "mlflow.utils", "mlflow.pytorch", "alembic")  # loggers


@final
class Tracker:
    """What a training tells MLflow. Nothing here waits for a server except `finish`, and that only so long."""

    def __init__(self, folder: RunFolder, tracking: Tracking, listener: Listener) -> None:
        """Begins to send what waits in the folder. Raises ValueError for an address of an unknown kind."""
        uri = addresses.resolve(tracking)
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        self._folder = folder
        self._listener = listener
        self._finished = False
        self._spool = Spool(folder.records)
        if self._spool.damaged:
            listener.say(f"{folder.records}: {self._spool.damaged} damaged lines are passed over")
        self._server = _Server(uri, tracking, folder)
        self._sender = Sender(self._spool, self._server, listener, addresses.public(uri))

    @classmethod
    def open(cls, folder: RunFolder, tracking: Tracking, recipe: Mapping[str, Any], listener: Listener) -> Self:
        """Begins or continues the run of a folder, and records its resolved recipe, package versions and git state."""
        tracker = cls(folder, tracking, listener)
        tracker._spool.append("status", {"status": "RUNNING", "time": milliseconds()})
        tracker.tags({"sparring.name": folder.name, **provenance.tags()})
        for key, value in provenance.flat(recipe):
            tracker._spool.describe("param", name(key), value[:LONGEST])
        if tracking.parent:
            tracker.tags({"mlflow.parentRunId": tracking.parent})
        if folder.recipe.is_file():
            tracker.artifact(folder.recipe)
        return tracker

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finishes the run, unless `finish` was called: as failed after an error, as killed after Ctrl-C."""
        if not self._finished:
            stopped = kind is not None and not issubclass(kind, Exception)
            self.finish("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")

    @property
    def run_id(self) -> str:
        """The run's id in MLflow; empty as long as the server has not given it one."""
        return self._server.identity.run_id

    @property
    def url(self) -> str:
        """Where to look at the run: a page, or the command that shows it."""
        return addresses.page(self._server.uri, self._server.identity)

    def metrics(self, axis: str, step: int, values: Mapping[str, float]) -> None:
        """Records a step's metrics. The steps of an axis ("step", "epoch") rise; one that is there is left alone."""
        if self._spool.metrics(axis, step, values):
            self._sender.wake()

    def tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        for key, value in tags.items():
            self._spool.describe("tag", name(key), value[:LONGEST])
        self._sender.wake()

    def artifact(self, path: Path, destination: str = "") -> None:
        """Copies a file or folder to the run's artifacts. It has to stay where it is until it is sent."""
        inside = path.resolve().is_relative_to(self._folder.path.resolve())  # the whole run folder may move
        kept = path.resolve().relative_to(self._folder.path.resolve()) if inside else path.resolve()
        self._spool.append("artifact", {"path": str(kept), "destination": destination})
        self._sender.wake()

    def model(self, network: nn.Module, example: np.ndarray[Any, Any]) -> None:
        """Logs the finished network (on the CPU); `example` is a batch of two or more images, for the signature."""
        target = self._folder.records / packing.NAME
        with tempfile.TemporaryDirectory(dir=self._folder.records) as beside:
            packing.save(load(), network, example, Path(beside) / packing.NAME)
            shutil.rmtree(target, ignore_errors=True)
            (Path(beside) / packing.NAME).rename(target)
        self._spool.append("model", {})
        self._sender.wake()

    def sync(self) -> None:
        """Flushes what is recorded to the disk; to be called before a checkpoint is written."""
        self._spool.sync()

    def finish(self, status: Status, seconds: float = 60.0) -> int:
        """Ends the run and waits, at most so long, until all has arrived; returns how many records wait even so."""
        self._finished = True
        self._spool.append("status", {"status": status, "time": milliseconds()})
        return self.close(seconds)

    def close(self, seconds: float) -> int:
        """Waits, at most so long, until all has arrived; returns how many records still wait on disk."""
        self._finished = True
        left = self._sender.drain(seconds)
        self._sender.stop()
        self._spool.close()
        if left:
            where = self._folder.records
            self._listener.say(f"{left} records for MLflow wait in {where}; resuming {self._folder.name} sends them")
        return left


def flush(folder: RunFolder, tracking: Tracking, listener: Listener, seconds: float = 60.0) -> int:
    """Sends what waits in a run's folder and changes nothing else; returns how many records wait even so."""
    return Tracker(folder, tracking, listener).close(seconds)


def load() -> Any:
    """The mlflow package, silenced: what matters is said to the listener."""
    import mlflow  # noqa: PLC0415 - it takes seconds, so the sender's thread does it

    for logger in CHATTER:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return mlflow


@final
class _Server:
    """MLflow's side: makes the run or finds it again, and delivers records to it. Works in the sender's thread."""

    def __init__(self, uri: str, tracking: Tracking, folder: RunFolder) -> None:
        """Reads what is known of the run; talks to nobody."""
        self.uri = uri
        self._hidden = addresses.secrets(uri)
        self.identity = Identity(folder.records / "run.json")
        self._experiment = tracking.experiment
        self._artifacts = addresses.artifacts(uri, tracking)
        self._folder = folder
        self._client: MlflowClient

    def connect(self) -> str:
        """Finds or makes the run; returns its id."""
        try:
            with understood(self._hidden):
                mlflow = load()
                database.prepare(self.uri, lambda uri: mlflow.MlflowClient(uri).search_experiments())
                self._client = mlflow.MlflowClient(self.uri)
                run = self._find() or self._make()
        except Refused as reason:  # a name that it does not take, a deleted experiment: mended there, not here
            raise Away(str(reason)) from reason
        self.identity.assign(run.info.run_id, run.info.experiment_id)
        return self.identity.run_id

    def deliver(self, records: Sequence[Record]) -> None:
        """Sends metrics, parameters and tags together, or one record of another kind."""
        try:
            with understood(self._hidden):
                self._send(records)
        except Refused:
            with understood(self._hidden):
                run = self._client.get_run(self.identity.run_id)
            if run.info.lifecycle_stage != "active":  # it refuses everything
                restore = f"mlflow runs restore --run-id {self.identity.run_id}"
                raise Away(f"the run is deleted there; `{restore}` brings it back") from None
            raise

    def _find(self) -> Run | None:
        """The run, by its id, or by its tag if the answer with the id was lost; None if the server has neither."""
        if self.identity.run_id:
            with passing("RESOURCE_DOES_NOT_EXIST"):
                return self._client.get_run(self.identity.run_id)
        experiment = self._client.get_experiment_by_name(self._experiment)
        return self._tagged(experiment.experiment_id) if experiment else None

    def _tagged(self, experiment_id: str) -> Run | None:
        """The first run that was made for this folder."""
        mine = f"tags.`{TAG}` = '{self.identity.id}'"
        found = self._client.search_runs([experiment_id], mine, order_by=["attributes.start_time ASC"])
        return found[0] if found else None

    def _make(self) -> Run:
        """A new run. Another process may make the experiment at the same time."""
        with passing("RESOURCE_ALREADY_EXISTS"):
            if self._client.get_experiment_by_name(self._experiment) is None:
                self._client.create_experiment(self._experiment, self._artifacts)
        experiment = self._client.get_experiment_by_name(self._experiment)
        assert experiment is not None
        tags = {TAG: self.identity.id, "mlflow.source.name": "sparring", "mlflow.source.type": "LOCAL"}
        run = self._client.create_run(experiment.experiment_id, self.identity.began, tags, self._folder.name)
        first = self._tagged(experiment.experiment_id) or run
        if first.info.run_id != run.info.run_id:  # an earlier attempt came through after all
            self._client.delete_run(run.info.run_id)
        return first

    def _send(self, records: Sequence[Record]) -> None:
        """Sends records, however often they were sent before."""
        run_id, body = self.identity.run_id, records[0].body
        match records[0].kind:
            case "artifact":
                self._send_artifact(self._folder.path / body["path"], body["destination"] or None)
            case "model":
                packing.send(load(), self._client, self.identity, self._folder.records / packing.NAME)
            case "status" if body["status"] == "RUNNING":
                self._client.update_run(run_id, "RUNNING")
            case "status":
                self._client.set_terminated(run_id, body["status"], body["time"])
            case _:
                self._send_batch(records)

    def _send_batch(self, records: Sequence[Record]) -> None:
        """Metrics, parameters and tags; MLflow takes so many at once."""
        entities = load().entities
        metrics, params, tags = [], [], []
        for kind, body in ((record.kind, record.body) for record in records):
            if kind == "metrics":
                metrics += [entities.Metric(*item, body["time"], body["step"]) for item in body["values"].items()]
            elif kind == "param":
                params.append(entities.Param(body["key"], body["value"]))
            else:
                tags.append(entities.RunTag(body["key"], body["value"]))
        run_id, log = self.identity.run_id, self._client.log_batch
        for some in pieces(metrics, 1000):
            log(run_id, metrics=some, synchronous=True)
        for some in pieces(params, 100):
            log(run_id, params=some, synchronous=True)
        for some in pieces(tags, 100):
            log(run_id, tags=some, synchronous=True)

    def _send_artifact(self, path: Path, destination: str | None) -> None:
        """A file, or a folder with all that is in it."""
        if path.is_dir():
            self._client.log_artifacts(self.identity.run_id, str(path), destination)
        elif path.is_file():
            self._client.log_artifact(self.identity.run_id, str(path), destination)
        else:
            raise Refused(f"{path} is gone")


@contextmanager
def understood(hidden: tuple[str, ...]) -> Iterator[None]:
    """Turns MLflow's errors into `Refused` where it does not take what was said, and else into `Away`.

    What is `hidden` is left out of their texts: MLflow quotes the address that it could not reach, password and all.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - MLflow brings it

    try:
        yield
    except load().exceptions.MlflowException as error:
        reason = Refused if error.error_code in REFUSALS else Away
        raise reason(addresses.without(hidden, brief(error))) from error
    except (SQLAlchemyError, OSError) as error:  # what requests raises is an OSError
        raise Away(addresses.without(hidden, brief(error))) from error


@contextmanager
def passing(code: str) -> Iterator[None]:
    """Lets MLflow's error of this code pass."""
    try:
        yield
    except load().exceptions.MlflowException as error:
        if error.error_code != code:
            raise
