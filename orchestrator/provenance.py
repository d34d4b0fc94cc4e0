"""Where a result comes from: the recipe, the versions of the packages and the state of the source code."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("sparring", "torch", "torchvision", "numpy", "ray", "mlflow", "safetensors", "cvxpy", "torchdiffeq")
SOURCE = Path(__file__).resolve().parent
GIT_SECONDS = 20.0  # that git may take on a slow disk


class Commit(NamedTuple):
    """The state of a git checkout."""

    commit: str  # 40 hex digits
    branch: str  # empty: none is checked out
    changes: int  # files that differ from the commit, new ones included, ignored ones not


def flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a resolved recipe under dotted names: ("defense.attack.eps", "0.3")."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)


def described(recipe: Mapping[str, Any]) -> str:
    """A recipe in a line, for lists of runs: "adversarial with pgd (linf 0.3): cnn4 on parquet, seed 0"."""
    defense = recipe["defense"]
    attack = defense.get("attack") or {}
    radius = f" ({attack.get('norm', '')} {attack['eps']:.4g})" if "eps" in attack else ""
    how = f" with {attack['name']}{radius}" if attack else ""
    return f"{defense['name']}{how}: {recipe['model']['name']} on {recipe['dataset']['name']}, seed {recipe['seed']}"


def title(kind: str, description: str) -> dict[str, str]:
    """What a run is ("training", "study" or "comparison") and what is in it, as tags that MLflow's lists show."""
    return {"sparring.kind": kind, "mlflow.note.content": description}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result; a package that is missing is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def checkout(source: Path = SOURCE) -> Commit | None:
    """The git checkout that `source` is part of; None if git does not keep its files (or is not there)."""
    tracked = git(source, "ls-files", "--", ".")
    commit = git(source, "rev-parse", "HEAD")
    changes = git(source, "status", "--porcelain", "--untracked-files=normal", "--", ":/")
    if not tracked or not commit or changes is None:  # a .venv inside somebody's repository is not that repository
        return None
    return Commit(commit, git(source, "branch", "--show-current") or "", len(changes.splitlines()))


def tags(source: Path = SOURCE) -> dict[str, str]:
    """Versions and git state as tags of an MLflow run."""
    found = {f"version.{package}": version for package, version in versions().items()}
    state = checkout(source)
    if state is None:
        return found | {"git.commit": "unknown"}
    return found | {
        "mlflow.source.git.commit": state.commit,  # the page of the run shows it
        "git.commit": state.commit,
        "git.branch": state.branch,
        "git.dirty": str(state.changes > 0).lower(),
        "git.changes": str(state.changes),
    }


def git(folder: Path, *arguments: str) -> str | None:
    """What a git command answers, or None if it fails."""
    try:
        answer = subprocess.run(  # noqa: S603
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            check=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
