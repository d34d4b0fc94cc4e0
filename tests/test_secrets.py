"""Passwords in a tracking address: used, and never written, sent or said."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import addresses
from orchestrator.cli import app
from orchestrator.recipe import Tracking
from orchestrator.sender import Sender

SECRET = "hunter2/s3cret"


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://me:hunter2@host:1/path", "https://host:1/path"),
        ("http://host:1/a@b", "http://host:1/a@b"),
        ("postgresql://me:hunter2/s3cret@host/db", "postgresql://host/db"),
        ("mysql+pymysql://me:hunter2%2Fs3cret@host/db?charset=utf8", "mysql+pymysql://host/db?charset=utf8"),
        ("postgresql://host/db?user=me&password=hunter2&sslmode=require", "postgresql://host/db?sslmode=require"),
        ("postgresql://host/db?sslmode=require&password=hunter2", "postgresql://host/db?sslmode=require"),
        ("https://host/?access_token=hunter2", "https://host/"),
        ("sqlite:////home/me@work:1/runs@2/mlflow.db", "sqlite:////home/me@work:1/runs@2/mlflow.db"),
        ("databricks", "databricks"),
        ("", ""),
    ],
)
def test_what_may_be_shown_of_an_address(uri: str, public: str) -> None:
    assert addresses.public(uri) == public
    said = addresses.without(addresses.secrets(uri), f"cannot reach {uri}")
    assert "hunter2" not in said
    assert addresses.public(public) == public


def test_a_resumed_runs_address_gets_its_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    full = f"postgresql://me:{SECRET}@host/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", full)
    assert addresses.resolve(Tracking(uri="postgresql://host/db")) == full
    assert addresses.resolve(Tracking(uri="postgresql://other/db")) == "postgresql://other/db"


def test_a_password_is_nowhere_in_a_runs_folder_nor_on_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole run whose server refuses every request: MLflow's own errors quote the address that it was given."""
    monkeypatch.setattr(Sender.drain, "__defaults__", (0.1,))  # seconds of patience at the end
    path = tmp_path / "recipe.toml"
    path.write_text(
        'train.epochs = 1\nvalidation.share = 0\nworkers.backend = "inline"\nevaluation.suite = "demo"\n'
        'evaluation.examples = 8\nmodel = {name = "cnn4", width = 4, hidden = 8}\n'
    )
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"http://me:hunter2@127.0.0.1:{nobody.getsockname()[1]}"
        typed = ["train", str(path), f"tracking.uri={uri}", f"tracking.folder={tmp_path / 'runs'}"]
        shown = CliRunner().invoke(app, typed)
    assert shown.exit_code == 0, shown.output
    assert "is away" in shown.output
    (records,) = tmp_path.glob("runs/*/records/records.jsonl")
    assert "tracking.uri" in records.read_text()
    everything = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert "hunter2" not in shown.output + "".join(capfd.readouterr())
    assert b"hunter2" not in everything


def test_a_dry_run_shows_no_password(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[tracking]\nuri = "http://me:hunter2@host:1"\n')
    for options in ([], ["--json"]):
        shown = CliRunner().invoke(app, ["train", str(path), "--dry-run", *options])
        assert shown.exit_code == 0
        assert "http://host:1" in shown.output
        assert "hunter2" not in shown.output
