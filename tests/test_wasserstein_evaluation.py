"""Evaluations in Wasserstein balls, of a linear classifier of the bundled digits: the distances are POT's, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ot
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from algorithms.models.mlp import Mlp
from orchestrator.diagnosis import norm_of
from orchestrator.evaluation import measure
from orchestrator.evaluations.drawing import figures_of
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.screen import cells, screen
from orchestrator.evaluations.targets import Target
from orchestrator.folders import RunFolder
from orchestrator.listener import Silent
from orchestrator.recipe import Evaluation, Recipe, Workers
from orchestrator.suites import load_suite
from tests.transport.oracle import costs
from workers.cache import open_split
from workers.datasets.digits import Digits

EPS, COUNT, FIRST = 0.4, 16, 12
SUITE = f"""
about = "both forms"
[[attacks]]
label = "WasserAttack"
examples = "all"
policy = "highest loss"
attack = {{name = "wasser_attack", steps = 10}}
[[attacks]]
label = "published"
examples = "all"
policy = "highest loss"
attack = {{name = "wasserstein_pgd", steps = 3, sweeps = 20, repair = false}}
[[attacks]]
label = "PGD"
attack = {{name = "pgd", norm = "linf", eps = 0.5}}
[curve]
attack = "WasserAttack"
radii = ["eps/4", "2*eps"]
examples = {FIRST}
every = true
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("wasserstein")
    (folder / "both.toml").write_text(SUITE)
    given = Evaluation(suite=str(folder / "both.toml"), norm="wasserstein", eps=EPS, examples=COUNT)
    recipe = Recipe(model=Mlp(hidden=()), evaluation=given, workers=Workers(backend="inline"))
    split = open_split(Digits(), "train")
    x, y = split.images(np.arange(600)), split.labels(np.arange(600))
    fitted = LogisticRegression(max_iter=300).fit(x.flatten(1).numpy(), y.numpy())
    weights = {"1.weight": torch.tensor(fitted.coef_).float(), "1.bias": torch.tensor(fitted.intercept_).float()}
    return measure(Target(RunFolder(folder), recipe, weights), Silent())


def rows_of(outcome: Outcome, label: str) -> dict[str, NDArray[Any]]:
    rows = pq.read_table(outcome.parquet).to_pandas()
    rows = rows[rows["attack"] == label]
    return {name: rows[name].to_numpy() for name in rows.columns}


def test_distances_and_precision_errors_are_of_the_images(outcome: Outcome) -> None:
    kept, rows, matrix = np.load(outcome.images), rows_of(outcome, "WasserAttack"), costs(8, 8, 2)
    assert len(kept["index"]) == COUNT
    for place, index in enumerate(kept["index"]):
        one, other = (kept[name][place].astype(float).ravel() for name in ("clean", "adversarial"))
        (row,) = np.flatnonzero(rows["index"] == index)
        exact = ot.emd2(one, other * one.sum() / other.sum(), matrix) / one.sum()
        assert exact <= rows["wasserstein"][row] + 1e-6  # moves within a window cost no less than all moves
        assert rows["wasserstein"][row] <= EPS * (1 + 1e-4)
        assert rows["precision"][row] == pytest.approx(abs(other.sum() - one.sum()) / one.sum(), abs=1e-12)
        assert rows["precision"][row] < 1e-5
    attacked = rows["label"] == rows["predicted"]
    assert attacked.sum() > COUNT // 2
    assert (rows["wasserstein"][attacked] > EPS / 2).all()
    assert (rows["wasserstein"][~attacked] == 0).all()


def test_images_that_lost_mass_are_not_in_the_ball_and_other_attacks_do_not_count(outcome: Outcome) -> None:
    clean, attack, published, pgd, worst = outcome.table
    assert attack.accuracy is not None
    assert clean.accuracy is not None
    assert published.accuracy == clean.accuracy  # though the images fool the model
    assert rows_of(outcome, "published")["success"].mean() > 1 - clean.accuracy.value + 0.2
    assert published.precision is not None
    assert published.precision > 1e-4
    assert pgd.accuracy is None  # its radius is none of transport
    assert attack.accuracy.value < clean.accuracy.value
    assert worst.accuracy == attack.accuracy
    rows = rows_of(outcome, "WasserAttack")
    assert attack.loss == pytest.approx(rows["loss_adv"].mean())
    assert attack.precision == pytest.approx(rows["precision"].mean())
    assert (rows["loss_adv"] >= rows["loss"] - 1e-9).all()


def test_curves_have_all_three_measures_on_the_same_examples(outcome: Outcome) -> None:
    curve = next(curve for curve in outcome.curves if curve.attack == "WasserAttack")
    assert [point.eps for point in curve.points] == [0, EPS / 4, EPS, 2 * EPS]
    assert curve.examples == FIRST
    shares = [point.accuracy.value for point in curve.points]
    losses = [point.loss for point in curve.points if point.loss is not None]
    assert shares == sorted(shares, reverse=True)
    assert losses == sorted(losses)
    assert len(losses) == 4
    assert shares[-1] < shares[0]
    first = rows_of(outcome, f"WasserAttack at {2 * EPS:.6g}")
    assert losses[-1] == pytest.approx(first["loss_adv"].mean())
    assert set(figures_of(outcome)) == {"robust-accuracy", "measures", "images"}
    assert cells(outcome.table[1])[-1].endswith(("e-08", "e-09", "e-07"))
    assert screen(outcome).row_count == 5
    assert outcome.metrics()["both/cross_entropy/WasserAttack"] == outcome.table[1].loss


def test_a_suite_gives_its_radius_to_attacks_of_the_same_kind_alone() -> None:
    suite = load_suite("wasserstein", "wasserstein", 0.7)
    assert [entry.eps for entry in suite.attacks] == [0.7] * 3
    assert len(suite.sweep) == 3 * 6
    assert [entry.eps for entry in load_suite("quick", "wasserstein", 0.7).attacks] == [8 / 255]  # PGD's own
    assert [entry.eps for entry in load_suite("wasserstein", "l1", 12.0).attacks] == [0.5] * 3


def test_a_diagnosis_knows_no_such_ball(tmp_path: Path) -> None:
    recipe = Recipe(evaluation=Evaluation(norm="wasserstein"))
    with pytest.raises(ValueError, match="norm: linf, l2, l1 or l0 for a diagnosis, not wasserstein; give --norm"):
        norm_of(Target(RunFolder(tmp_path), recipe, {}))
