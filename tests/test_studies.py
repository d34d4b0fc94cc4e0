"""The studies that are shipped: every budget has recipes that can be, and the smallest one runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from orchestrator import reproduction
from orchestrator.catalogue import HOME
from orchestrator.reproduction import reproduce
from orchestrator.study import BUDGETS, cells_of, load_study

# what shorter attacks leave out, the second step of a solver that takes one, and a mean (rho) over examples that are
# right, as there may be none, and what nobody has labelled
UNKNOWN = ("people", "Carlini-Wagner l2", "PGD-100", "steps, PGD-1000", "first time, PGD-1000", "second", "rho")
STUDIES = sorted((HOME / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_budget_of_every_study_has_recipes_that_can_be(path: Path) -> None:
    study = load_study(path)
    assert set(study.budgets) == set(BUDGETS)
    for budget in study.budgets.values():
        assert len(cells_of(study, path, budget)) == len(study.rows) * len(budget.seeds)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its smallest budget, for the last of its models: training, evaluations, the table with figures."""
    whole = load_study(path)
    beside = {evaluation.surrogate for evaluation in whole.evaluations.values()} | {
        column.over or column.minus for column in whole.columns
    }
    beside |= {labelling.reader for labelling in whole.labels.values()}
    models = [row for row in whole.rows if row is whole.rows[-1] or row.title in beside]  # with those that it needs
    some = dataclasses.replace(whole, rows=tuple(models), budgets={"smoke": whole.budgets["smoke"]})
    monkeypatch.setattr(reproduction, "load_study", lambda _: some)
    made = reproduce(path, "smoke", (f"tracking.folder={tmp_path}",))
    for model in models:
        found = {column.title: made.entries[model.title][column.title].ours for column in whole.columns}
        assert all((made.folder / f"{picture}.png").is_file() for picture in whole.pictures)
        assert np.isfinite([value for values in found.values() for value in values]).all()
        missing = [title for title, values in found.items() if not values]
        assert all(title.startswith(UNKNOWN) for title in missing)
