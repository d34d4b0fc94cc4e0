"""A path: what runs that differ in one setting came to, in their order (Matyasko 2021, Figures 3.4 and 3.5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.distance_plots import Step, path
from orchestrator.evaluations.outcome import Outcome
from orchestrator.folders import RunFolder, write_atomically
from orchestrator.plots import png


def paths(runs: Sequence[str | Path], setting: str) -> tuple[list[Step], Path]:
    """Test errors and mean relative norms of runs by the value of a setting, such as `defense.weight`; and their plot.

    The plot lies beside the first run. Runs with one value, of several seeds say, are taken together. Raises ValueError
    for a run without the setting, as a number, or without an evaluation by an attack for the smallest norm.
    """
    if not runs:
        raise ValueError("runs: one or more")
    folders = [RunFolder.find(run) for run in runs]
    found: dict[float, tuple[list[float], list[float]]] = {}
    for folder in folders:
        errors, relative = found.setdefault(value_of(folder, setting), ([], []))
        error, norm = figures_of(folder)
        errors.append(error)
        relative.append(norm)
    steps = [Step(value, *found[value]) for value in sorted(found)]
    place = folders[0].path.parent / f"path-{setting}.png"
    write_atomically(place, png(path(steps, setting)))
    return steps, place


def value_of(folder: RunFolder, setting: str) -> float:
    """A number in the run's recipe, by its place there."""
    value: Any = json.loads(folder.recipe.read_text(encoding="utf-8"))
    for key in setting.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, int | float):
        return float(value)
    raise ValueError(f"setting: a number in the recipe of each run, such as defense.weight; not so in {folder.name}")


def figures_of(folder: RunFolder) -> tuple[float, float]:
    """The clean error and the mean relative norm of the newest evaluation that has one."""
    stored = sorted(folder.evaluations.glob("*/outcome.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for outcome in (Outcome.read(file.parent) for file in stored):
        for row in outcome.table if outcome is not None else ():
            if outcome is not None and row.relative is not None and row.relative.correct is not None:
                clean = outcome.table[0].accuracy
                assert clean is not None
                return 1 - clean.value, row.relative.correct
    raise ValueError(f"{folder.name}: no evaluation by an attack for the smallest norm; run sparring evaluate first")
