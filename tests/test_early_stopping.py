"""The study of early stopping in its smallest form: it trains, prints its table, and does not train twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studies import early_stopping

RECIPES = Path(__file__).parents[1] / "recipes"
SMALL = [
    "dataset.name=digits",
    "model.width=4",
    "model.hidden=8",
    "train.batch=320",
    "train.precision=float32",
    "defense.attack.steps=3",
    "validation.share=0",
    "convergence.examples=0",
    "evaluation.examples=32",
    "evaluation.suite=demo",
    "workers.backend=inline",
]


def test_it_prints_both_recipes_and_what_the_second_one_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = [str(RECIPES / f"mnist-{name}-reduced.toml") for name in ("pgd", "dynamic")]
    arguments = [*recipes, "--seeds", "4", *SMALL, f"tracking.folder={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["early_stopping", *arguments])
    early_stopping.main()
    told = capsys.readouterr().out
    assert "| mnist-pgd-reduced | 4 |" in told
    assert "| mnist-dynamic-reduced | mean |" in told
    assert "points of robust accuracy" in told
    runs = sorted(path.name for path in tmp_path.glob("*-*"))
    early_stopping.main()
    assert capsys.readouterr().out == told
    assert sorted(path.name for path in tmp_path.glob("*-*")) == runs


def test_ratios_by_hand() -> None:
    pairs = [
        [early_stopping.Figures(0.98, 0.90, 10.0, 100.0), early_stopping.Figures(0.97, 0.91, 4.0, 50.0)],
        [early_stopping.Figures(0.98, 0.90, 10.0, 100.0), early_stopping.Figures(0.97, 0.89, 6.0, 70.0)],
    ]
    last = early_stopping.table([0, 1], pairs, ["plain", "early"]).splitlines()[-1]
    assert last == (
        "early against plain: +0.00 points of robust accuracy (+1.00, -1.00), 0.500 of the gradient evaluations, "
        "0.600 of the attack time"
    )
