"""`sparring status` on runs that run, stopped, finished and have said nothing yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.folders import RunFolder, locked, write_json
from orchestrator.spool import Spool
from orchestrator.status import status


def started(folder: Path, name: str = "a-run", steps: int = 4) -> RunFolder:
    run = RunFolder(folder / name)
    write_json(run.recipe, {})
    write_json(run.plan, {"steps": 10})
    spool = Spool(run.records)
    for step in range(steps):
        spool.metrics("step", step, {"train/loss": 2.0 - step / 10, "seconds/step": 0.5})
    spool.close()
    return run


def test_a_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    run = started(tmp_path)
    with locked(run):
        now = status(run)
    assert (now.state, now.steps, now.of) == ("running", 4, 10)
    assert now.seconds_left == pytest.approx(6 * 0.5)
    assert now.metrics["train/loss"] == pytest.approx(1.7)


def test_without_a_process_it_is_stopped_and_with_a_summary_finished(tmp_path: Path) -> None:
    run = started(tmp_path)
    assert (status(run).state, status(run).seconds_left) == ("stopped", None)
    write_json(run.summary, {})
    assert status(run).state == "finished"


def test_a_run_that_has_said_nothing_yet(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new")
    write_json(run.recipe, {})
    now = status(run)
    assert (now.steps, now.of, now.seconds_silent, now.metrics) == (0, 0, None, {})


def test_it_says_how_many_records_wait_for_mlflow(tmp_path: Path) -> None:
    run = started(tmp_path)
    assert status(run).records_waiting == 4
    said = CliRunner().invoke(app, ["status", "--folder", str(tmp_path)])
    assert "Records wait for MLflow: 4 of a-run" in said.output
    write_json(run.records / "cursor.json", {"target": "there", "records": 3, "bytes": 1})
    assert status(run).records_waiting == 1
    write_json(run.records / "cursor.json", {"records": 4})
    assert "wait" not in CliRunner().invoke(app, ["status", "--folder", str(tmp_path)]).output


def test_the_command_shows_all_runs(tmp_path: Path) -> None:
    started(tmp_path, "first")
    started(tmp_path, "second", 7)
    shown = CliRunner().invoke(app, ["status", "--folder", str(tmp_path), "--json"])
    assert shown.exit_code == 0
    assert [(run["run"], run["steps"]) for run in json.loads(shown.stdout)["runs"]] == [("first", 4), ("second", 7)]
    assert CliRunner().invoke(app, ["status", "--folder", str(tmp_path / "none")]).exit_code == 2


def test_the_table_shows_the_workers_and_what_happened_to_them(tmp_path: Path) -> None:
    run = started(tmp_path)
    with Spool(run.records) as spool:
        spool.metrics("step", 4, {"workers/attackers": 8, "workers/idle_share": 0.12, "workers/requeues": 3})
        spool.metrics("step", 5, {"workers/idle_share": 0.25})
    started(tmp_path, "inline")
    shown = CliRunner().invoke(app, ["status", "--folder", str(tmp_path)]).stdout
    assert "8, 25% idle, 3 requeues" in shown
    assert shown.count("idle") == 1
