"""A whole run, inline: recipe to evaluation, MLflow's view of it, and the same run after Ctrl-C and SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from algorithms.attacks.pgd import PGD
from algorithms.control.maximisation import Layer
from algorithms.defenses.adversarial import Adversarial
from algorithms.models.cnn4 import Cnn4
from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from orchestrator import convergence
from orchestrator.folders import RunFolder, locked
from orchestrator.loop import Interrupted
from orchestrator.recipe import Evaluation, Recipe, Tracking, Train, Validation, Workers
from orchestrator.run import train

ROOT = Path(__file__).parents[1]
STEPS = 20  # two epochs of digits


def recipe(folder: Path, **train_fields: Any) -> Recipe:
    return Recipe(
        name="small",
        model=Cnn4(width=4, hidden=8),
        defense=Adversarial(attack=PGD(eps=0.2, step_size=0.1, steps=2)),
        train=Train(epochs=2, checkpoint_every=4, **train_fields),
        evaluation=Evaluation(eps=0.2, examples=40),
        workers=Workers(backend="inline"),
        tracking=Tracking(folder=str(folder)),
    )


def only_run(folder: Path) -> tuple[MlflowClient, MlflowRun]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("sparring")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def steps_recorded(folder: Path, metric: str = "train/loss") -> list[int]:
    client, run = only_run(folder)
    return sorted(m.step for m in client.get_metric_history(run.info.run_id, metric))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, train(recipe(folder)).folder


def test_a_run_leaves_weights_figures_and_a_page(finished: tuple[Path, RunFolder]) -> None:
    _, run = finished
    assert run.model.exists()
    assert json.loads(run.summary.read_text())["metrics"]["train/loss"] > 0
    assert list(run.evaluations.glob("*/*.parquet"))
    assert "<html" in run.report.read_text()


def test_it_says_how_far_its_attacks_converged_and_what_an_epoch_cost(finished: tuple[Path, RunFolder]) -> None:
    folder, run = finished
    measured = convergence.read(run)
    assert sorted(measured) == [1, 2]
    rows = measured[2]
    assert rows.schema.equals(convergence.SCHEMA)
    assert len(set(rows["index"].to_pylist())) == rows.num_rows == 256
    assert 0 <= min(rows["fosc_box"].to_pylist()) <= max(rows["fosc"].to_pylist())
    metrics = only_run(folder)[1].data.metrics
    assert metrics["fosc/mean"] == pytest.approx(np.mean(rows["fosc"].to_numpy()))
    assert metrics["fosc/largest"] == max(rows["fosc"].to_pylist())
    spent = metrics["cost/backwards_per_example"] * 128 * STEPS / 2  # the same in each step of standard training
    assert metrics["cost/epoch_backwards"] == pytest.approx(spent)
    assert metrics["cost/epoch_backwards_saved"] == 0
    terms = json.loads(run.theorem.read_text())
    assert terms["delta"] == metrics["theorem/delta"] == metrics["fosc/largest"]
    assert terms["steps"] == STEPS
    assert metrics["theorem/smoothness_in_parameters_estimate"] > 0
    assert (run.convergence / "fosc.png").stat().st_size > 1000
    assert "training, fosc-strength" in run.report.read_text()


def test_mlflow_has_every_step_once_and_the_recipe(finished: tuple[Path, RunFolder]) -> None:
    folder, _ = finished
    assert steps_recorded(folder) == list(range(STEPS))
    assert steps_recorded(folder, "validation/robust_accuracy") == [0, 1]
    client, run = only_run(folder)
    assert run.info.status == "FINISHED"
    assert run.data.params["defense.attack.eps"] == "0.2"
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"recipe.json", "report.html"} <= names


def test_mlflow_gives_the_model_back(finished: tuple[Path, RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = finished
    _, run = only_run(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    model = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model")
    assert model(torch.rand(5, 1, 8, 8)).shape == (5, 10)


def test_the_same_command_again_begins_a_new_run(finished: tuple[Path, RunFolder], tmp_path: Path) -> None:
    first = train(recipe(tmp_path)).folder
    second = train(recipe(tmp_path)).folder
    assert (first.name, second.name) == (finished[1].name, f"{first.name}-2")
    assert first.model.read_bytes() == second.model.read_bytes() == finished[1].model.read_bytes()


class Printing:
    """A listener whose sentences pytest shows when a test fails."""

    def begin(self, stage: str, total: int, unit: str) -> None: ...

    def advance(self, stage: str, done: int, note: str = "") -> None: ...

    def end(self, stage: str) -> None: ...

    def say(self, message: str) -> None:
        print(message)


def driver(folder: Path) -> subprocess.Popen[str]:
    """The same training in a process of its own, which says each step."""
    code = (
        "from tests.test_run import recipe; from orchestrator.run import train; from pathlib import Path\n"
        "from orchestrator.listener import Silent\n"
        "class Loud:\n"
        "    begin = end = say = lambda *a: None\n"
        "    def advance(self, stage, done, note=''): print(done if stage == 'training' else '', flush=True)\n"
        f"train(recipe(Path({str(folder)!r})), listener=Loud())\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_driver_goes_on_with_the_same_bits_in_the_same_mlflow_run(
    by: signal.Signals, finished: tuple[Path, RunFolder], tmp_path: Path
) -> None:
    process = driver(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "7":
            break
    process.send_signal(by)
    process.communicate(timeout=60)
    assert process.returncode != 0
    run = train(recipe(tmp_path), listener=Printing())
    assert run.resumed
    assert run.folder.model.read_bytes() == finished[1].model.read_bytes()
    assert steps_recorded(tmp_path) == list(range(STEPS))
    assert only_run(tmp_path)[1].info.status == "FINISHED"


def test_resume_by_name(finished: tuple[Path, RunFolder], tmp_path: Path) -> None:
    started = recipe(tmp_path)
    with pytest.raises(Interrupted):
        stop_after_first_checkpoint(started)
    (name,) = [path.parent.name for path in tmp_path.glob("*/recipe.json")]
    run = train(started, resume=name)
    assert run.folder.model.read_bytes() == finished[1].model.read_bytes()


def stop_after_first_checkpoint(started: Recipe) -> None:
    class Interrupting:
        def begin(self, stage: str, total: int, unit: str) -> None: ...

        def advance(self, stage: str, done: int, note: str = "") -> None:
            if done == 5:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)

        def end(self, stage: str) -> None: ...

        def say(self, message: str) -> None: ...

    train(started, listener=Interrupting())


def test_two_processes_cannot_be_at_one_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with locked(folder), pytest.raises(ValueError, match="another process is at this run"), locked(folder):
        pass


def test_an_unknown_run_is_named_with_those_there_are(finished: tuple[Path, RunFolder]) -> None:
    folder, run = finished
    with pytest.raises(ValueError, match=f"no run 'nothing' .*{run.name}"):
        train(recipe(folder), resume="nothing")


def test_an_update_of_layers_that_the_model_lacks_begins_no_run(tmp_path: Path) -> None:
    update = HamiltonianMaximization(layers={"block9.*": Layer(frozen=True)})
    with pytest.raises(ValueError, match=r"no layer is called 'block9\.\*'"):
        train(replace(recipe(tmp_path / "runs"), update=update))
    assert not (tmp_path / "runs").exists()


def test_validation_predicts_as_many_clean_images_as_are_asked_for(tmp_path: Path) -> None:
    few = replace(recipe(tmp_path), validation=Validation(share=0.5, examples=3, clean=41))
    measured = json.loads(train(few).folder.summary.read_text())["metrics"]
    for name, count in (("clean", 41), ("robust", 3)):
        share = count * measured[f"validation/{name}_accuracy"]
        assert share == pytest.approx(round(share))
    assert 0 < measured["validation/clean_accuracy"] < 1
