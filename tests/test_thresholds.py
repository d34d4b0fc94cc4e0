"""Robust accuracy at any radius, from rows that are written here by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.evaluations.figures import Curve, Point, Row, Share
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.thresholds import accuracy_at

FAB = Row("FAB", 4, None, "alone", 1.0, 1.0, "l2", 0.25, mean=0.2)
PGD = Row("PGD", 4, Share(0.5, 0.1, 0.9), "alone", 1.0, 1.0, None, None)
MEASURED = Curve("PGD", "linf", 4, False, tuple(Point(eps, Share(1 - eps, 0, 1)) for eps in (0.0, 0.1, 0.3)))
CERTIFIED = Curve("certified", "l2", 4, True, tuple(Point(eps, Share(1 - eps, 0, 1)) for eps in (0.0, 0.2, 0.4)))


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """Of four examples: wrong as it is, fooled at 0.1 and at 0.3, never fooled (what was tried lay at 0.05)."""
    columns = {
        "attack": pa.array(["clean"] * 4 + ["FAB"] * 4).dictionary_encode(),
        "label": [1, 2, 3, 4] * 2,
        "predicted": [0, 2, 3, 4] * 2,
        "success": [True, False, False, False, True, True, True, False],
        "l2": [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.05],
        "linf": [9.0] * 8,  # not the norm of this attack
    }
    found = Outcome(
        run="run", suite="suite", norm="linf", eps=0.2, examples=4, table=(FAB, PGD), curves=(MEASURED, CERTIFIED),
        shown="FAB", classes=("a",), folder=tmp_path,
    )  # fmt: skip
    pq.write_table(pa.table(columns), found.parquet)
    return found


@pytest.mark.parametrize(("radius", "stand"), [(0.05, 3), (0.0999, 3), (0.1, 2), (0.2, 2), (0.3, 1), (math.inf, 0)])
def test_an_attack_for_the_smallest_norm_answers_for_every_radius(outcome: Outcome, radius: float, stand: int) -> None:
    expected = stand / 4 if math.isfinite(radius) else 0.0
    assert accuracy_at(outcome, "FAB", radius) == expected


def test_other_attacks_answer_for_the_radii_where_they_were_run(outcome: Outcome) -> None:
    assert accuracy_at(outcome, "PGD", 0.3) == 0.7
    assert accuracy_at(outcome, "PGD", 0.2) is None
    assert accuracy_at(outcome, "Square", 0.3) is None


def test_a_certificate_answers_for_every_radius(outcome: Outcome) -> None:
    assert [accuracy_at(outcome, "certified", radius) for radius in (0.1, 0.2, 0.3)] == [1.0, 0.8, 0.8]
