"""MLflow's SQLite file is whole or not there, also when the process that makes it dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import database


def fill(uri: str) -> None:
    Path(uri.removeprefix(database.PREFIX)).write_text("tables")


def test_a_new_file_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mlflow.db"
    database.prepare(f"sqlite:///{path}", fill)
    assert path.read_text() == "tables"
    assert [p.name for p in path.parent.iterdir()] == ["mlflow.db"]


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def break_off(uri: str) -> None:
        fill(uri)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.prepare(f"sqlite:///{tmp_path}/mlflow.db", break_off)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("older")
    database.prepare(f"sqlite:///{path}", fill)
    assert path.read_text() == "older"


def test_of_two_that_make_it_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"

    def slower(uri: str) -> None:
        fill(uri)
        path.write_text("first")

    database.prepare(f"sqlite:///{path}", slower)
    assert path.read_text() == "first"


def test_servers_are_left_alone() -> None:
    database.prepare("http://127.0.0.1:5000", lambda uri: pytest.fail("asked to make a file"))
