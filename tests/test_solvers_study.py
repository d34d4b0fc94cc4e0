"""The study of solvers, small: one row from a recipe to the printed table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studies import solvers

RECIPE = Path(__file__).parents[1] / "recipes" / "digits-soblock.toml"
SUITE = """
about = "one step"
[[attacks]]
label = "PGD-20"
examples = "all"
attack = "fgsm"
"""


def test_a_row_is_trained_attacked_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / "cache"))
    suite = tmp_path / "one.toml"
    suite.write_text(SUITE)
    changes = [
        "model.width=4",
        "train.epochs=1",
        "validation.share=0.5",
        "validation.every=9",
        "workers.backend=inline",
        f"tracking.folder={tmp_path / 'runs'}",
        f"evaluation.suite={suite}",
        "evaluation.examples=32",
    ]
    monkeypatch.setattr(sys, "argv", ["solvers", str(RECIPE), "--solvers", "euler", *changes])
    solvers.main()
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("| solver | gain | clean | PGD-20 |")
    assert lines[2].startswith("| euler | 1 | ")
    assert lines[2].count(" % ") == 2
    (run,) = (tmp_path / "runs").glob("digits-soblock-*")
    before = (run / "model.safetensors").stat().st_mtime_ns
    solvers.main()
    assert capsys.readouterr().out.strip().splitlines() == lines
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_solvers_are_written_with_their_tolerance() -> None:
    assert solvers.setting("rk4") == '{method="rk4"}'
    assert solvers.setting("dopri5:0.01") == '{method="dopri5", tolerance=0.01}'
