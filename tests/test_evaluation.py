"""Evaluations of a linear model, whose robust accuracy is known by hand at every radius."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save as pack

from algorithms.control.certificate import Certificate
from algorithms.models.mlp import Mlp
from orchestrator import evaluation, suites
from orchestrator.config import resolve
from orchestrator.evaluation import measure
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.parts import SCHEMA
from orchestrator.evaluations.screen import cells, screen
from orchestrator.evaluations.settings import digest_of
from orchestrator.evaluations.targets import Target
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.listener import Silent
from orchestrator.recipe import Evaluation, Recipe, Workers
from orchestrator.reports import write_report
from orchestrator.weights import fresh_model
from tests.linear import EPS, Points, W, falls_at, gaps, target, watch
from workers.judge import JudgeTask

STANDING = """
about = "the second attack sees only what the first left"
[[attacks]]
label = "one step"
attack = {name = "pgd", steps = 1, step_size = "eps/2", random_start = false}
[[attacks]]
label = "PGD"
attack = {name = "pgd", steps = 5, step_size = "eps/2"}
"""


ALONE = """
about = "the second attack is weaker, and is judged alone"
[[attacks]]
label = "PGD"
attack = {name = "pgd", steps = 5, step_size = "eps/2"}
[[attacks]]
label = "one step"
examples = "all"
attack = {name = "pgd", steps = 1, step_size = "eps/2", random_start = false}
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[JudgeTask]:
    """The tasks that attackers were given."""
    return watch(monkeypatch, tmp_path).tasks


@pytest.fixture
def images() -> np.ndarray:
    return Points().read("test").images


def accuracy_at(images: np.ndarray, eps: float) -> float:
    """By hand: right as it is (nine of ten), and farther than eps from the boundary."""
    right = np.arange(len(images)) % 10 != 0
    return float((right & (falls_at(images) > eps)).mean())


def test_demo_finds_what_the_closed_form_says(calls: list[JudgeTask], tmp_path: Path, images: np.ndarray) -> None:
    outcome = measure(target(tmp_path), Silent())
    values = {row.attack: row.accuracy.value for row in outcome.table if row.accuracy}
    robust = accuracy_at(images, EPS)
    assert 0.2 < robust < 0.7
    assert values == pytest.approx({"clean": 0.9, "FGSM": robust, "PGD-20": robust, "worst case": robust})
    (curve,) = outcome.curves
    found = {round(point.eps, 6): point.accuracy.value for point in curve.points}
    factors = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
    assert found == pytest.approx({round(f * EPS, 6): accuracy_at(images, f * EPS) for f in factors})
    gradients = {row.attack: row.backwards for row in outcome.table}
    assert gradients["FGSM"] == pytest.approx(0.9)  # one a row, and none for what is wrong already
    assert 0.9 < gradients["PGD-20"] < 18


def test_every_example_has_a_row_for_every_attack(calls: list[JudgeTask], tmp_path: Path, images: np.ndarray) -> None:
    outcome = measure(target(tmp_path), Silent())
    table = pq.read_table(outcome.parquet)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pandas()
    for attack in ("clean", "FGSM", "PGD-20"):
        mine = rows[rows.attack == attack]
        assert mine["index"].tolist() == list(range(300))
        assert (mine.success == (mine.predicted_adv != mine.label)).all()
    fgsm = rows[rows.attack == "FGSM"]
    attacked = fgsm[fgsm.label == fgsm.predicted]
    np.testing.assert_allclose(attacked.linf, EPS, rtol=1e-5)
    np.testing.assert_allclose(attacked.l2, 3 * EPS, rtol=1e-5)  # nine pixels
    np.testing.assert_allclose(attacked.l1, 9 * EPS, rtol=1e-5)
    assert set(attacked.l0) == {9.0}
    assert set(attacked.eps) == {EPS}
    assert (attacked.success.to_numpy() == (falls_at(images) < EPS)[attacked["index"]]).all()


def test_only_what_still_stands_is_attacked(calls: list[JudgeTask], tmp_path: Path, images: np.ndarray) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(STANDING)
    outcome = measure(target(tmp_path, suite=str(suite)), Silent())
    seen = {label: np.concatenate([t.indices for t in calls if t.label == label]) for label in ("one step", "PGD")}
    right = np.flatnonzero(np.arange(300) % 10 != 0)
    assert seen["one step"].tolist() == right.tolist()
    left = right[falls_at(images)[right] > EPS / 2]
    assert seen["PGD"].tolist() == left.tolist()
    values = [row.accuracy.value for row in outcome.table if row.accuracy]
    known = [accuracy_at(images, eps) for eps in (0, EPS / 2, EPS, EPS)]
    assert values == pytest.approx(known)


def test_an_attack_on_all_examples_is_judged_alone(calls: list[JudgeTask], tmp_path: Path, images: np.ndarray) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(ALONE)
    outcome = measure(target(tmp_path, suite=str(suite)), Silent())
    values = [row.accuracy.value for row in outcome.table if row.accuracy]
    assert values == pytest.approx([accuracy_at(images, eps) for eps in (0, EPS, EPS / 2, EPS)])


def test_the_curve_asks_only_what_is_open(calls: list[JudgeTask], tmp_path: Path, images: np.ndarray) -> None:
    measure(target(tmp_path, suite="quick"), Silent())
    for factor, larger in ((0.75, 1.0), (0.5, 0.75), (0.25, 0.5)):
        label = f"PGD-20 at {factor * EPS:.6g}"
        asked = np.concatenate([t.indices for t in calls if t.label == label])
        falls = falls_at(images)
        assert (falls[asked] < larger * EPS).all()
        assert (asked < 256).all()
        assert (asked % 10 != 0).all()
    beyond = np.concatenate([t.indices for t in calls if t.label == f"PGD-20 at {1.5 * EPS:.6g}"])
    assert (falls_at(images)[beyond] > 1.25 * EPS).all()


def test_a_finished_evaluation_is_read_not_repeated(calls: list[JudgeTask], tmp_path: Path) -> None:
    first = measure(target(tmp_path), Silent())
    calls.clear()
    assert measure(target(tmp_path), Silent()) == first
    assert not calls
    assert not list(tmp_path.rglob("parts"))
    (first.folder / "outcome.json").write_text("{")
    assert measure(target(tmp_path), Silent()) == first
    assert calls


@pytest.mark.parametrize(
    "other", [{"eps": 0.02}, {"examples": 200}, {"norm": "l2"}, {"suite": "quick"}, {"seed": 1}, {"weights": 1}]
)
def test_other_settings_are_never_mixed(calls: list[JudgeTask], tmp_path: Path, other: dict[str, Any]) -> None:
    asked = {key: value for key, value in other.items() if key not in ("seed", "weights")}
    one, another = target(tmp_path), target(tmp_path, **asked)
    if "seed" in other:
        another = another._replace(recipe=dataclasses.replace(another.recipe, seed=1))
    if "weights" in other:
        another = another._replace(weights={"w": one.weights["w"].nextafter(torch.tensor(9.0))})
    assert measure(one, Silent()).folder != measure(another, Silent()).folder


def test_digest_of_weights_sees_names_types_and_shapes() -> None:
    ones = torch.ones(2, 3)
    variants = [{"a": ones}, {"b": ones}, {"a": ones.T}, {"a": ones.double()}, {"a": ones, "b": torch.ones(())}]
    assert len({digest_of(v) for v in variants}) == len(variants)


def test_outcome_on_the_screen(calls: list[JudgeTask], tmp_path: Path) -> None:
    outcome = measure(target(tmp_path, examples=100), Silent())
    assert cells(outcome.table[0]) == ("clean", "90.0 %", "82.6 to 94.5", *[""] * 8)
    assert screen(outcome).row_count == 4
    assert outcome.metrics()["demo/accuracy/clean"] == 0.9
    assert set("".join(outcome.metrics())) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")
    assert Outcome.read(outcome.folder) == outcome
    moved = outcome.folder.rename(tmp_path / "moved")
    again = Outcome.read(moved)
    assert again is not None
    assert again.parquet.is_file()


def test_evaluate_finds_a_run_or_a_file_of_it(calls: list[JudgeTask], tmp_path: Path) -> None:
    """The bundled digits: a recipe on the disk can only name what its readers have."""
    run = RunFolder(tmp_path / "a-run")
    recipe = Recipe(workers=Workers(backend="inline"))
    write_json(run.recipe, resolve(recipe))
    write_atomically(run.model, pack(fresh_model(recipe).state_dict()))
    asked = Evaluation(suite="demo", examples=20, eps=0.01)
    outcome = evaluation.evaluate(run.path, asked)
    assert (outcome.examples, outcome.eps, outcome.suite, outcome.run) == (20, 0.01, "demo", "a-run")
    assert run.report.is_file()
    calls.clear()
    assert evaluation.evaluate(str(run.model), asked) == outcome
    assert not calls
    with pytest.raises(ValueError, match="no run 'nowhere'"):
        evaluation.evaluate("nowhere")


class Told:
    """What a tracker was told."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.files: list[tuple[str, str]] = []

    def metrics(self, axis: str, step: int, values: dict[str, float]) -> None:
        assert step == 0
        self.values |= values

    def artifact(self, path: Path, destination: str = "") -> None:
        assert path.is_file()
        self.files.append((path.name, destination))


def test_an_evaluation_is_published(calls: list[JudgeTask], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a-run")
    recipe = Recipe(workers=Workers(backend="inline"), evaluation=Evaluation(suite="quick", eps=0.05, examples=20))
    write_json(run.recipe, resolve(recipe))
    outcome = measure(Target(run, recipe, fresh_model(recipe).state_dict()), Silent())
    told = Told()
    write_report(run)
    evaluation.publish(run, outcome, told)  # type: ignore[arg-type]
    place = f"evaluations/{outcome.folder.name}"
    assert {("examples.parquet", place), ("outcome.json", place), ("report.html", "")} <= set(told.files)
    assert told.values["quick/eps"] == 0.05
    assert "quick/accuracy/worst_case" in told.values


def test_weights_of_another_model_are_refused(calls: list[JudgeTask], tmp_path: Path) -> None:
    wrong = target(tmp_path)._replace(weights={"v": torch.ones(9)})
    with pytest.raises(ValueError, match="do not fit the model"):
        measure(wrong, Silent())


def test_settings_are_plain_json(calls: list[JudgeTask], tmp_path: Path) -> None:
    outcome = measure(target(tmp_path, examples=20), Silent())
    settings = json.loads((outcome.folder / "settings.json").read_text())
    assert settings["suite"]["attacks"][0]["attack"]["name"] == "fgsm"
    assert settings["shard"] == 128
    write_json(tmp_path / "again.json", resolve(settings))


def test_norms_gives_a_whole_curve_for_each_norm(calls: list[JudgeTask], tmp_path: Path, images: np.ndarray) -> None:
    suite = tmp_path / "fewer.toml"
    suite.write_text((suites.FOLDER / "norms.toml").read_text().replace("steps = 500", "steps = 300"))
    outcome = measure(target(tmp_path, suite=str(suite), examples=30), Silent())
    assert [curve.norm for curve in outcome.curves] == ["linf", "l2", "l1", "l0"]
    assert all(curve.steps and curve.points[0].accuracy.value == 0.9 for curve in outcome.curves)
    assert all(curve.points[-1].accuracy.value == 0 for curve in outcome.curves)
    shares = {"linf": np.abs(W).sum(), "l2": np.linalg.norm(W), "l1": np.abs(W).max()}  # Hölder; no pixel meets the box
    for row in outcome.table[1:4]:
        assert row.norm is not None
        known = np.where(np.arange(30) % 10 == 0, 0, np.abs(gaps(images[:30])) / shares[row.norm])
        exact = float(np.sort(known)[14])
        assert row.median is not None
        assert exact * (1 - 1e-4) <= row.median <= 1.05 * exact + 1e-3
        assert row.forwards > row.backwards >= 100
    assert len(screen(outcome).columns) == 9


def linear(folder: Path, **asked: Any) -> Target:
    """The same classes as those of `Gap`, by a chain of layers that a certificate is known for."""
    weights = {"1.weight": np.stack([W, 0 * W]), "1.bias": np.array([-W.sum() / 2, 0.0])}
    model = target(folder, certify=True, **asked)
    recipe = dataclasses.replace(model.recipe, model=Mlp(hidden=()))
    return Target(model.folder, recipe, {name: torch.tensor(w, dtype=torch.float32) for name, w in weights.items()})


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_certified_radii_are_what_the_norm_of_the_layer_gives(
    norm: str, calls: list[JudgeTask], tmp_path: Path, images: np.ndarray
) -> None:
    """The logits' gap changes by |w| |delta| at most; the certificate counts sqrt(2) |w|, as for any two logits."""
    eps = 0.05 if norm == "l2" else 0.01
    outcome = measure(linear(tmp_path, norm=norm, eps=eps), Silent())
    rows = pq.read_table(outcome.parquet).to_pandas()
    clean, attacked = rows[rows.attack == "clean"], rows[rows.attack != "clean"]
    right = np.arange(len(images)) % 10 != 0
    radii = np.where(right, np.abs(gaps(images)) / (np.sqrt(2) * np.linalg.norm(W)), 0)
    np.testing.assert_allclose(clean.certified, radii, atol=1e-6)
    assert attacked.certified.isna().all()
    shares = {row.attack: row.accuracy.value for row in outcome.table}
    assert list(shares) == ["clean", "FGSM", "PGD-20", "certified", "worst case"]
    assert shares["certified"] == pytest.approx((radii > eps * (3 if norm == "linf" else 1)).mean())
    assert 0 < shares["certified"] <= shares["worst case"] < shares["clean"]
    (curve,) = (curve for curve in outcome.curves if curve.attack == "certified")
    assert (curve.norm, curve.steps) == ("l2", True)
    for point in curve.points:
        assert point.accuracy.value == pytest.approx((radii > point.eps + 1e-6).mean(), abs=0.02)
    assert outcome.gains == pytest.approx({"0": 1.0, "1": np.linalg.norm(W)})
    assert "demo/accuracy/certified" in outcome.metrics()
    assert Outcome.read(outcome.folder) == outcome


def test_a_certificate_that_an_attack_breaks_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, calls: list[JudgeTask], tmp_path: Path
) -> None:
    monkeypatch.setattr(evaluation, "certify", lambda model, shape: Certificate(0.5, {}))
    with pytest.raises(AssertionError, match="adversarial images within certified radii"):
        measure(linear(tmp_path, norm="l2", eps=0.1), Silent())


def test_a_model_without_a_certificate_is_refused_before_any_work(calls: list[JudgeTask], tmp_path: Path) -> None:
    refused = target(tmp_path, certify=True)
    message = "certify: no certificate: 'the model' is a Gap, whose gain is not known"
    with pytest.raises(ValueError, match=message):
        evaluation.prepare(refused.recipe, refused.folder)
    with pytest.raises(ValueError, match=message):
        measure(refused, Silent())
    assert calls == []
