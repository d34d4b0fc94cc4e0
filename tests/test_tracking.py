"""Tracking, against a real `mlflow server` that is killed and started again, and against SQLite files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.models.cnn4 import Cnn4
from orchestrator import addresses
from orchestrator.folders import RunFolder, write_json
from orchestrator.recipe import Evaluation, Recipe, Tracking, Train, Workers
from orchestrator.run import train
from orchestrator.status import status
from orchestrator.tracking import Tracker, flush
from tests.told import Heard, Told, until

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECIPE = {"seed": 1, "defense": {"attack": {"name": "pgd", "eps": 0.3}}}
ENVIRONMENT = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
ENDLESS = """
import sys, time
from pathlib import Path
from orchestrator.folders import RunFolder
from orchestrator.listener import Silent
from orchestrator.recipe import Tracking
from orchestrator.tracking import Tracker
folder = RunFolder(Path(sys.argv[1]))
tracker = Tracker.open(folder, Tracking(folder=str(folder.path.parent)), {"seed": 1}, Silent())
for step in range(10**9):
    tracker.metrics("step", step, {"loss": step / 3, "clean": 0.5})
    time.sleep(0.002)
"""
LOAD = """
import sys
import mlflow, numpy, torch
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pytorch.load_model(sys.argv[2])
x = torch.from_numpy(numpy.load(sys.argv[3]))
with torch.no_grad():
    numpy.save(sys.argv[4], torch.cat([model(x[:1]), model(x[1:])]).numpy())
"""


class Server:
    """A real `mlflow server` on a free port, which keeps its port and its data when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        store += ["--artifacts-destination", str(self.folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *where],
                env=ENVIRONMENT,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        until(self.answers)

    def answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # it leads a group of its own
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's, to be copied: making one takes seconds."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    client_of(Tracking(uri=f"sqlite:///{path}")).search_experiments()
    return path


@pytest.fixture
def server(tmp_path: Path, database: Path) -> Iterator[Server]:
    shutil.copy(database, tmp_path / "server.db")
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "runs" / "my-run")
    write_json(made.recipe, RECIPE)
    return made


@pytest.fixture
def nowhere(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """No address, and no database where it is looked for then."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracking(folder=str(folder.path.parent))


@pytest.fixture
def local(nowhere: Tracking, database: Path) -> Tracking:
    """No address, and a database beside the runs."""
    shutil.copy(database, Path(nowhere.folder) / "mlflow.db")
    return nowhere


def client_of(tracking: Tracking) -> MlflowClient:
    from mlflow import MlflowClient  # noqa: PLC0415 - it takes seconds

    return MlflowClient(addresses.resolve(tracking))


def history(tracking: Tracking, run_id: str, metric: str = "loss") -> list[tuple[int, float]]:
    """Step and value of every row that MLflow has of a metric."""
    rows = client_of(tracking).get_metric_history(run_id, metric)
    return sorted((row.step, row.value) for row in rows)


def runs(tracking: Tracking) -> list[Any]:
    """All runs, deleted ones as well."""
    client = client_of(tracking)
    experiment = client.get_experiment_by_name(tracking.experiment)
    return list(client.search_runs([experiment.experiment_id], run_view_type=3)) if experiment else []


def log(tracker: Tracker, steps: range) -> None:
    for step in steps:
        tracker.metrics("step", step, {"loss": step / 3})


def fail(tracker: Tracker) -> None:
    log(tracker, range(10))
    raise KeyError


def thirds(count: int) -> list[tuple[int, float]]:
    return [(step, step / 3) for step in range(count)]


def test_a_run_without_an_address_is_in_a_file_beside_the_runs(folder: RunFolder, local: Tracking) -> None:
    told = Told()
    with Tracker.open(folder, local, RECIPE, told) as tracker:
        log(tracker, range(20))
        tracker.metrics("epoch", 1, {"validation/clean": 0.9, "acc=1": float("nan")})
        (folder.path / "report.html").write_text("<p>")
        tracker.artifact(folder.path / "report.html", "reports")
        tracker.artifact(folder.path / "missing")
    found = client_of(local).get_run(tracker.run_id)
    assert (found.info.run_name, found.info.status) == ("my-run", "FINISHED")
    assert found.data.params == {"seed": "1", "defense.attack.name": "pgd", "defense.attack.eps": "0.3"}
    assert found.data.tags["version.torch"] == torch.__version__
    assert "git.commit" in found.data.tags
    assert history(local, tracker.run_id) == thirds(20)
    assert history(local, tracker.run_id, "validation/clean") == [(1, 0.9)]
    assert np.isnan(found.data.metrics["acc_1"])
    artifacts = folder.path.parent / "artifacts" / tracker.run_id / "artifacts"
    assert json.loads((artifacts / "recipe.json").read_text()) == RECIPE
    assert (artifacts / "reports" / "report.html").read_text() == "<p>"
    assert len(told.sentences) == 1
    assert "missing is gone" in told.sentences[0]
    assert tracker.url == f"mlflow ui --backend-store-uri sqlite:///{folder.path.parent}/mlflow.db"


def test_a_resumed_run_is_the_same_run(folder: RunFolder, local: Tracking) -> None:
    first = Tracker.open(folder, local, RECIPE, Told())
    with pytest.raises(KeyError), first:
        fail(first)
    assert client_of(local).get_run(first.run_id).info.status == "FAILED"
    told = Told()
    with Tracker.open(folder, local, RECIPE | {"seed": 2}, told) as second:  # MLflow does not let a parameter change
        log(second, range(5, 15))
    assert second.run_id == first.run_id
    found = client_of(local).get_run(first.run_id)
    assert (found.info.status, found.data.params["seed"]) == ("FINISHED", "1")
    assert history(local, first.run_id) == thirds(15)
    assert len(told.sentences) == 1
    assert "refuses a param" in told.sentences[0]


def test_records_sent_twice_are_there_once(folder: RunFolder, local: Tracking) -> None:
    tracker = Tracker.open(folder, local, RECIPE, Told())
    log(tracker, range(300))
    assert tracker.finish("FINISHED") == 0
    cursor = folder.records / "cursor.json"
    known = json.loads(cursor.read_text())
    lines = (folder.records / "records.jsonl").read_bytes().splitlines(keepends=True)
    write_json(cursor, known | {"records": 150, "bytes": sum(map(len, lines[:150]))})  # killed before it was written
    assert flush(folder, local, Told()) == 0
    assert json.loads(cursor.read_text()) == known
    cursor.unlink()
    assert flush(folder, local, Told()) == 0
    assert history(local, tracker.run_id) == thirds(300)
    assert len(runs(local)) == 1


def test_a_run_whose_id_was_lost_is_found_again(folder: RunFolder, local: Tracking) -> None:
    with Tracker.open(folder, local, RECIPE, Told()) as first:
        log(first, range(3))
    identity = json.loads((folder.records / "run.json").read_text())
    write_json(folder.records / "run.json", identity | {"run_id": "", "experiment_id": ""})
    with Tracker.open(folder, local, RECIPE, Told()) as second:
        log(second, range(5))
    assert second.run_id == first.run_id
    assert len(runs(local)) == 1
    assert history(local, first.run_id) == thirds(5)


def test_a_server_that_does_not_know_the_run_is_told_everything(
    folder: RunFolder, local: Tracking, database: Path
) -> None:
    with Tracker.open(folder, local, RECIPE, Told()) as here:
        log(here, range(3))
    shutil.copy(database, folder.path / "other.db")
    elsewhere = Tracking(uri=f"sqlite:///{folder.path}/other.db", folder=local.folder)
    with Tracker.open(folder, elsewhere, RECIPE, Told()) as there:
        log(there, range(5))
    assert there.run_id != here.run_id
    assert history(elsewhere, there.run_id) == thirds(5)
    with Tracker.open(folder, local, RECIPE, Told()) as back:
        log(back, range(6))
    assert back.run_id == here.run_id
    assert history(local, here.run_id) == thirds(6)


@pytest.mark.parametrize("when", ["before a resume", "in the middle"])
def test_records_for_a_deleted_run_wait_until_it_is_restored(folder: RunFolder, local: Tracking, when: str) -> None:
    told = Told()
    tracker = Tracker.open(folder, local, RECIPE, told)
    log(tracker, range(3))
    if when == "before a resume":
        assert tracker.finish("FINISHED") == 0
    until(lambda: bool(tracker.run_id) and history(local, tracker.run_id) == thirds(3))
    client_of(local).delete_run(tracker.run_id)
    if when == "before a resume":
        tracker = Tracker.open(folder, local, RECIPE, told)
    log(tracker, range(5))
    until(lambda: bool(told.sentences))
    client_of(local).restore_run(tracker.run_id)
    assert tracker.finish("FINISHED") == 0
    assert "mlflow runs restore" in told.sentences[0]
    assert history(local, tracker.run_id) == thirds(5)
    assert not (folder.records / "refused.jsonl").exists()


def test_the_finished_model_loads_in_another_process_for_any_batch(folder: RunFolder, local: Tracking) -> None:
    network = Cnn4(width=4, hidden=8).build((1, 8, 8), 10).eval()
    x = np.random.default_rng(0).random((7, 1, 8, 8), dtype=np.float32)
    with Tracker.open(folder, local, RECIPE, Told()) as tracker:
        for _ in range(2):  # a second one replaces the first
            nn.init.normal_(network[-1].bias)  # type: ignore[operator, arg-type, union-attr]
            tracker.model(network, x[:2])
    outputs = client_of(local).get_run(tracker.run_id).outputs
    assert len(outputs.model_outputs) == 1
    np.save(folder.path / "x.npy", x)
    uri, model = addresses.resolve(local), f"runs:/{tracker.run_id}/model"
    paths = [str(folder.path / "x.npy"), str(folder.path / "logits.npy")]
    subprocess.run([sys.executable, "-c", LOAD, uri, model, *paths], check=True, env=ENVIRONMENT, capture_output=True)
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.load(folder.path / "logits.npy"), expected, atol=1e-5)
    (described,) = (folder.path.parent / "artifacts" / "models").glob("*/artifacts/MLmodel")
    assert '"shape": [-1, 1, 8, 8]' in " ".join(described.read_text().split())


def test_a_server_that_is_killed_and_started_again_misses_nothing(folder: RunFolder, server: Server) -> None:
    tracking, told = Tracking(uri=server.uri, folder=str(folder.path.parent)), Told()
    tracker = Tracker.open(folder, tracking, RECIPE, told)
    tracker.model(nn.Linear(2, 2), np.zeros((2, 2), np.float32))
    log(tracker, range(50))
    until(lambda: bool(tracker.run_id) and len(history(tracking, tracker.run_id)) == 50)
    server.kill()
    late = RunFolder(folder.path.parent / "late")  # begins while nobody is there
    write_json(late.recipe, RECIPE)
    other = Tracker.open(late, tracking, RECIPE, Told())
    log(tracker, range(50, 100))
    log(other, range(30))
    until(lambda: bool(told.sentences))
    assert (other.run_id, other.url) == ("", server.uri)
    server.start()
    log(tracker, range(100, 150))
    tracker.metrics("epoch", 1, {"clean": float("nan"), "loss/worst": float("inf")})
    assert tracker.finish("FINISHED") == other.finish("FINISHED") == 0
    assert history(tracking, tracker.run_id) == thirds(150)
    assert history(tracking, other.run_id) == thirds(30)
    assert np.isnan(history(tracking, tracker.run_id, "clean")[0][1])
    assert history(tracking, tracker.run_id, "loss/worst") == [(1, sys.float_info.max)]  # MLflow's infinity
    assert ["away" in sentence for sentence in told.sentences] == [True, False]
    experiment = client_of(tracking).get_run(tracker.run_id).info.experiment_id
    assert tracker.url == f"{server.uri}/#/experiments/{experiment}/runs/{tracker.run_id}"
    assert [model.name for model in client_of(tracking).search_logged_models([experiment])] == ["model"]


def test_a_run_that_never_finds_its_server_is_sent_when_it_is_resumed(tmp_path: Path, server: Server) -> None:
    server.kill()
    tracking, heard = Tracking(uri=server.uri, folder=str(tmp_path / "runs")), Heard()
    recipe = Recipe(
        name="alone",
        model=Cnn4(width=2, hidden=4),
        train=Train(epochs=1),
        evaluation=Evaluation(suite="demo", examples=8),
        workers=Workers(backend="inline"),
        tracking=tracking,
    )
    run = train(recipe, listener=heard)
    name = run.folder.name
    assert (run.folder.model.is_file(), run.outcome.parquet.is_file()) == (True, True)
    assert [f"resuming {name} sends them" in sentence for sentence in heard.said].count(True) == 1
    assert status(run.folder).records_waiting > 11

    server.start()
    again = train(resume=str(run.folder.path), listener=Heard())
    assert (again.metrics, again.outcome.metrics()) == (run.metrics, run.outcome.metrics())
    assert status(run.folder).records_waiting == 0
    (found,) = runs(tracking)
    assert (found.info.run_name, found.info.status) == (name, "FINISHED")
    assert [step for step, _ in history(tracking, found.info.run_id, "train/loss")] == list(range(10))
    assert len(client_of(tracking).search_logged_models([found.info.experiment_id])) == 1


def test_a_training_that_is_killed_and_resumed_has_every_step_once(folder: RunFolder, nowhere: Tracking) -> None:
    command, cursor = [sys.executable, "-c", ENDLESS, str(folder.path)], folder.records / "cursor.json"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until(lambda: cursor.exists() and json.loads(cursor.read_text())["records"] > 100)
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[0] == b""  # MLflow and its migrations say nothing
    reached = (folder.records / "records.jsonl").read_bytes().count(b'"kind":"metrics"')
    with Tracker.open(folder, nowhere, {"seed": 1}, Told()) as tracker:
        log(tracker, range(reached - 50, reached + 50))
    assert history(nowhere, tracker.run_id) == thirds(reached + 50)


def test_what_is_written_down_is_not_waited_for(folder: RunFolder) -> None:
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        tracker = Tracker.open(folder, Tracking(uri=uri, folder=str(folder.path.parent)), RECIPE, Told())
        log(tracker, range(100))
        assert tracker.close(seconds=0.1) > 100
    lines = (folder.records / "records.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["body"]["step"] for line in lines if b'"metrics"' in line] == list(range(100))


@pytest.mark.parametrize("uri", ["file:/tmp/mlruns", "mlruns", "ftp://host", "http//host"])
def test_an_address_that_is_none_is_refused(folder: RunFolder, uri: str) -> None:
    with pytest.raises(ValueError, match=r"tracking\.uri"):
        Tracker.open(folder, Tracking(uri=uri), RECIPE, Told())
    assert not folder.records.exists()


def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:5000")
    assert addresses.resolve(Tracking()) == "http://env:5000"
    assert addresses.resolve(Tracking(uri="mysql+pymysql://u:p@host/db")) == "mysql+pymysql://u:p@host/db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert addresses.resolve(Tracking(folder=str(tmp_path))) == f"sqlite:///{tmp_path}/mlflow.db"
    assert addresses.public("https://user:secret@host:1/path") == "https://host:1/path"
    assert addresses.public("http://host:1") == "http://host:1"
    assert addresses.artifacts("http://host", Tracking()) is None
    assert addresses.artifacts("sqlite:///x", Tracking(folder=str(tmp_path))) == str(tmp_path / "artifacts")
