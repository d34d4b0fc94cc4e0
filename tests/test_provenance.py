"""Versions and git state, against the packages themselves and repositories made for the purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator import provenance


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of `source/code.py`."""
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    git(tmp_path, "init", "--quiet", "--initial-branch", "trunk")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "code.py").write_text("1")
    (tmp_path / ".gitignore").write_text("/environment/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_versions_are_the_packages_own() -> None:
    found = provenance.versions()
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert found["numpy"] == np.__version__
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert "mlflow" in found


def test_a_package_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package-anywhere"))
    assert set(provenance.versions()) == {"python", "numpy"}


def test_a_clean_checkout(repository: Path) -> None:
    commit = git(repository, "log", "-1", "--format=%H")
    assert provenance.checkout(repository / "source") == (commit, "trunk", 0)
    tags = provenance.tags(repository / "source")
    assert (tags["git.commit"], tags["git.branch"], tags["git.dirty"]) == (commit, "trunk", "false")
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["version.numpy"] == np.__version__


def test_changed_and_new_files_count_anywhere_in_the_checkout(repository: Path) -> None:
    (repository / "source" / "code.py").write_text("2")
    (repository / "new.py").write_text("3")
    (repository / "environment").mkdir()
    (repository / "environment" / "ignored.py").write_text("4")
    state = provenance.checkout(repository / "source")
    assert state is not None
    assert state.changes == 2
    assert provenance.tags(repository / "source")["git.dirty"] == "true"


def test_no_branch_is_checked_out(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    state = provenance.checkout(repository / "source")
    assert state is not None
    assert state.branch == ""


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.checkout(tmp_path) is None
    tags = provenance.tags(tmp_path)
    assert tags["git.commit"] == "unknown"
    assert "mlflow.source.git.commit" not in tags


def test_code_that_the_repository_around_it_ignores_is_not_of_its_commit(repository: Path) -> None:
    (repository / "environment").mkdir()
    (repository / "environment" / "installed.py").write_text("1")
    assert provenance.checkout(repository / "environment") is None


def test_a_machine_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.checkout(repository) is None


def test_leaves_of_a_recipe_have_dotted_names() -> None:
    recipe = {"seed": 1, "defense": {"attack": {"eps": 0.3, "name": "pgd"}}, "milestones": [1, 2], "average": None}
    assert dict(provenance.flat(recipe)) == {
        "seed": "1",
        "defense.attack.eps": "0.3",
        "defense.attack.name": "pgd",
        "milestones": "[1, 2]",
        "average": "null",
    }


def test_a_recipe_in_a_line() -> None:
    recipe = {"defense": {"name": "adversarial", "attack": {"name": "pgd", "norm": "linf", "eps": 0.3}}}
    recipe |= {"model": {"name": "cnn4"}, "dataset": {"name": "digits"}}
    assert provenance.described(recipe | {"seed": 2}) == "adversarial with pgd (linf 0.3): cnn4 on digits, seed 2"
    plain = recipe | {"defense": {"name": "standard"}, "seed": 0}
    assert provenance.described(plain) == "standard: cnn4 on digits, seed 0"
