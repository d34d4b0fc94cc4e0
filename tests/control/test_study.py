"""The study of optimal control, a row of it with a minute's budget, and what its table says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.config import load_recipe
from studies import optimal_control
from studies.optimal_control import COMMON, RECIPES, Figures, line, rows


def test_every_row_is_a_recipe() -> None:
    for row in rows():
        recipe = load_recipe(RECIPES / f"{row.recipe}.toml", [*COMMON, *row.changes])
        assert recipe.evaluation.certify
        assert recipe.train.epochs == 5
    assert len({row.name for row in rows()}) == len(rows())


def test_a_row_with_a_small_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["dataset.name=digits", "train.epochs=1", "validation.examples=8", "evaluation.examples=32"]
    place = [f"tracking.folder={tmp_path}/runs", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
    optimal_control.main(["--rows", "mlp: MSA", "--seeds", "3", *small, *place])
    *_, table = capsys.readouterr().out.splitlines()  # libraries may say something before
    name, seeds, *shares, _, seconds = [cell.strip() for cell in table.strip("|").split("|")]
    assert (name, seeds) == ("mlp: MSA", "1")
    clean, linf, l2, certified = (float(share.removesuffix(" %")) for share in shares)
    assert certified <= l2 <= clean
    assert linf <= clean
    assert float(seconds) >= 0  # a quick machine needs less than is shown


def test_a_line_has_means_and_the_spread_of_the_robust_accuracy() -> None:
    runs = [Figures(0.9, 0.5, 0.8, 0.7, 4.0), Figures(0.8, 0.6, 0.7, 0.6, 6.0)]
    assert line("a", runs) == "| a | 2 | 85.0 % | 55.0 % | 75.0 % | 65.0 % | 50.0 to 60.0 | 5.0 |"
    assert "nan" in line("a", [runs[0]._replace(seconds=math.nan)])
