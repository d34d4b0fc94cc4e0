"""Evaluations of a linear model, whose robust accuracy is known by hand at every radius."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save as pack

from algorithms.attacks.pgd import PGD
from orchestrator import evaluation, suites
from orchestrator.backend import Inline
from orchestrator.config import RecipeError, resolve
from orchestrator.evaluation import Target, measure
from orchestrator.evaluations import figures
from orchestrator.evaluations.outcome import Outcome, cells, screen
from orchestrator.evaluations.parts import SCHEMA
from orchestrator.evaluations.settings import digest_of
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.listener import Silent
from orchestrator.loop import Interrupted
from orchestrator.recipe import Evaluation, Recipe, Workers
from orchestrator.weights import fresh_model
from tests.linear import Gap, Linear, Points, falls_at
from workers.judge import JudgeTask

EPS = 0.03
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


class Calls(Inline):  # type: ignore[misc] - a test may watch what nobody else may extend
    """The inline backend, which notes every task and may be interrupted."""

    tasks: list[JudgeTask]
    stop_after: float = math.inf

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        self.tasks.append(arguments[0])
        super().submit(key, method, *arguments)

    def collect(self, keys: Any) -> Any:
        self.stop_after -= 1
        if self.stop_after < 0:
            raise KeyboardInterrupt
        return super().collect(keys)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[JudgeTask]:
    """The tasks that attackers were given; data sets are cached in the test's own folder."""
    tasks: list[JudgeTask] = []

    @contextlib.contextmanager
    def opened(workers: Workers, work: Any, listener: Any) -> Iterator[Calls]:
        backend = Calls(work)
        backend.tasks = tasks
        backend.stop_after = opened.stop_after  # type: ignore[attr-defined]
        yield backend

    opened.stop_after = math.inf  # type: ignore[attr-defined]
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluation, "open_backend", opened)
    monkeypatch.setattr(evaluation, "figures_of", lambda outcome: {})  # plots have tests of their own, and take seconds
    return tasks


def target(folder: Path, **asked: Any) -> Target:
    given = Evaluation(**{"suite": "demo", "eps": EPS, **asked})
    recipe = Recipe(model=Linear(), dataset=Points(), evaluation=given, workers=Workers(backend="inline"))
    return Target(RunFolder(folder), recipe, Gap().state_dict())


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


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder, without the place where it lies."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes().replace(str(folder).encode(), b"") for p in paths}


@pytest.mark.parametrize("after", [0, 5, 11])
def test_interrupted_and_resumed_is_uninterrupted(calls: list[JudgeTask], tmp_path: Path, after: int) -> None:
    measure(target(tmp_path / "whole" / "run"), Silent())
    whole = len(calls)
    calls.clear()
    evaluation.open_backend.stop_after = after  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        measure(target(tmp_path / "again" / "run"), Silent())
    assert not list((tmp_path / "again").rglob("outcome.json"))
    finished = len(list((tmp_path / "again").rglob("*.parquet")))
    assert finished == after
    calls.clear()
    evaluation.open_backend.stop_after = math.inf  # type: ignore[attr-defined]
    measure(target(tmp_path / "again" / "run"), Silent())
    assert len(calls) == whole - after
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_asked_to_stop_it_keeps_the_shard_and_goes_on_later(calls: list[JudgeTask], tmp_path: Path) -> None:
    answers = iter([False, False, False, True])
    with pytest.raises(Interrupted, match="same command"):
        measure(target(tmp_path), Silent(), stop=lambda: next(answers))
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
    before = len(calls)
    measure(target(tmp_path), Silent())
    assert sum(task.label == "FGSM" for task in calls[before:]) == 2


def damage_nothing(path: Path) -> None:
    """Leaves a part as it is."""


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_other_examples(path: Path) -> None:
    table = pq.read_table(path)
    moved = table.set_column(2, "index", pa.array(table["index"].to_numpy() + 1))
    pq.write_table(moved, path)


@pytest.mark.parametrize(
    ("suffix", "harm", "again"),
    [
        (".parquet", damage_nothing, 0),
        (".parquet", cut_short, 1),
        (".parquet", empty, 1),
        (".parquet", of_other_examples, 1),
        (".parquet", Path.unlink, 1),
        (".npz", cut_short, 1),
        (".npz", empty, 1),
        (".npz", Path.unlink, 1),
    ],
)
def test_a_damaged_part_is_made_again(
    calls: list[JudgeTask], tmp_path: Path, suffix: str, harm: Callable[[Path], None], again: int
) -> None:
    evaluation.open_backend.stop_after = 8  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        measure(target(tmp_path, examples=300), Silent())
    (victim,) = tmp_path.rglob(f"002-00000{suffix}")  # the first shard of PGD-20, whose images are kept
    harm(victim)
    evaluation.open_backend.stop_after = 0  # type: ignore[attr-defined]
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        measure(target(tmp_path), Silent())
    assert sum(t.label == "PGD-20" and t.indices[0] == 0 for t in calls) == again


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


# Reference values: statsmodels.stats.proportion.proportion_confint(count, total, 0.05, "wilson")
@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775327998628892),
        (1, 10, 0.0178762131, 0.4041500268),
        (5, 10, 0.2365930905, 0.7634069095),
        (10, 10, 0.7224672001371107, 1.0),
        (81, 263, 0.2552821, 0.3662202),  # Newcombe 1998, Statistics in Medicine 17, page 861: 0.2553 to 0.3662
        (15, 148, 0.0624, 0.1605),  # the same: 0.0624 to 0.1605
    ],
)
def test_wilson(count: int, total: int, low: float, high: float) -> None:
    share = figures.wilson(count, total)
    assert share.value == count / total
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_the_score_test_inverted() -> None:
    for count, total in ((3, 7), (40, 41), (500, 1000)):
        share = figures.wilson(count, total)
        for bound in (share.low, share.high):
            assert abs(share.value - bound) / math.sqrt(bound * (1 - bound) / total) == pytest.approx(1.959963985)
    with pytest.raises(ValueError, match="count"):
        figures.wilson(3, 2)


def test_median_and_step_curve() -> None:
    distances = np.array([0.0, 0.1, 0.2, 0.3, math.inf])
    assert figures.median(distances) == 0.2
    assert figures.median(np.array([0.1, math.inf, math.inf])) is None
    curve = figures.step_curve("a", "l2", distances)
    assert [(p.eps, p.accuracy.value) for p in curve.points] == [(0.0, 0.8), (0.1, 0.6), (0.2, 0.4), (0.3, 0.2)]
    assert len(figures.step_curve("a", "l2", np.linspace(0.1, 1, 5000)).points) <= 201


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_tolerance_is_above_rounding_and_far_below_a_step(norm: Any) -> None:
    x = torch.rand(200, 3072, generator=torch.Generator().manual_seed(0))
    delta = torch.randn(200, 3072, generator=torch.Generator().manual_seed(1))
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    delta = 0.5 * delta / torch.linalg.vector_norm(delta, order, dim=1, keepdim=True)
    sizes = torch.linalg.vector_norm((x + delta).double() - x.double(), order, dim=1)
    allowed = figures.tolerance(norm, 0.5, 3072)
    assert (sizes - 0.5).max() < allowed < 0.5 / 255


def test_outcome_on_the_screen(calls: list[JudgeTask], tmp_path: Path) -> None:
    outcome = measure(target(tmp_path, examples=100), Silent())
    assert cells(outcome.table[0]) == ("clean", "90.0 %", "82.6 to 94.5", "", "", "")
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
    asked: dict[str, Any] = {"suite": "demo", "examples": 20, "eps": 0.01}
    outcome = evaluation.evaluate(run.path, **asked)
    assert (outcome.examples, outcome.eps, outcome.suite, outcome.run) == (20, 0.01, "demo", "a-run")
    assert run.report.is_file()
    calls.clear()
    assert evaluation.evaluate(str(run.model), **asked) == outcome
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
    evaluation.publish(run, outcome, told)  # type: ignore[arg-type]
    place = f"evaluations/{outcome.folder.name}"
    assert {("examples.parquet", place), ("outcome.json", place), ("report.html", "")} <= set(told.files)
    assert told.values["quick/eps"] == 0.05
    assert "quick/accuracy/worst_case" in told.values


def test_weights_of_another_model_are_refused(calls: list[JudgeTask], tmp_path: Path) -> None:
    wrong = target(tmp_path)._replace(weights={"v": torch.ones(9)})
    with pytest.raises(ValueError, match="do not fit the model"):
        measure(wrong, Silent())


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return str(path)


def test_suites_fill_in_norm_radius_and_relative_lengths(tmp_path: Path) -> None:
    text = """
    about = "one"
    [[attacks]]
    label = "a"
    attack = {name = "pgd", steps = 7, step_size = "2.5 * eps / 7"}
    [[attacks]]
    label = "b"
    attack = {name = "pgd", norm = "linf", eps = "8/255", step_size = 0.25}
    """
    suite = suites.load_suite(written(tmp_path, text), "l2", 0.7)
    assert suite.attacks[0].attack == PGD(norm="l2", eps=0.7, steps=7, step_size=2.5 * 0.7 / 7)
    assert suite.attacks[1].attack == PGD(norm="linf", eps=8 / 255, step_size=0.25)
    assert suite.name == "suite"


def test_suites_that_come_with_sparring_load() -> None:
    assert {"quick", "demo"} <= set(suites.names())
    for name in suites.names():
        assert suites.about(name)
        assert suites.load_suite(name, "linf", 0.3).attacks
    radii = [entry.eps for entry in suites.load_suite("quick", "linf", 0.8).sweep]
    assert radii == pytest.approx([0.2, 0.4, 0.6, 1.0])  # 1.2 is no radius in l-infinity
    assert {entry.label for entry in suites.load_suite("quick", "linf", 0.8).sweep} >= {"PGD-20 at 0.2"}


ENTRY = '[[attacks]]\nlabel = "a"\nattack = '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[", "not a TOML file"),
        ('about = ""', "attacks: missing"),
        ('about = ""\nattacks = []', "attacks: one .* table or more"),
        (f'about = ""\n{ENTRY}{{name = "pgq"}}', r"attacks\[0\].attack.name: no attack is called 'pgq'"),
        (f'about = ""\n{ENTRY}{{name = "pgd", step_size = "eps ** 2"}}', r"step_size: a multiple of eps"),
        (f'about = ""\n{ENTRY}{{name = "pgd", step_size = "eps / 0"}}', r"step_size: a multiple of eps"),
        (f'about = ""\n{ENTRY}{{name = "pgd", step_size = "__import__(eps)"}}', r"step_size: a multiple of eps"),
        (f'about = ""\n{ENTRY}{{name = "pgd", stepsize = 1}}', r"stepsize: no such key.*did you mean 'step_size'"),
        (f'about = ""\n{ENTRY}"pgd"\ntargets = 3', r"targets: 0 for an attack that is not targeted"),
        (f'about = ""\n{ENTRY}{{name = "pgd", targeted = true}}', r"targets: how many"),
        (f'about = ""\n{ENTRY}"pgd"\n{ENTRY}"fgsm"', r"'a' is there twice"),
        (f'about = ""\n{ENTRY}"pgd"\n[curve]\nattack = "b"\nradii = []', r"curve: attack is one of a, not 'b'"),
        ('about = ""\n[[attacks]]\nlabel = "clean"\nattack = "pgd"', r"label: what tables call the attack"),
    ],
)
def test_errors_in_suites_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        suites.load_suite(written(tmp_path, text), "linf", 0.3)
    assert "suite.toml" in str(caught.value)


def test_unknown_suites_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'quick'"):
        suites.load_suite("quik", "linf", 0.3)
    with pytest.raises(ValueError, match="no such file"):
        suites.load_suite("nowhere.toml", "linf", 0.3)
    with pytest.raises(RecipeError, match="eps"):
        suites.load_suite("quick", "linf", 1.5)


def test_settings_are_plain_json(calls: list[JudgeTask], tmp_path: Path) -> None:
    outcome = measure(target(tmp_path, examples=20), Silent())
    settings = json.loads((outcome.folder / "settings.json").read_text())
    assert settings["suite"]["attacks"][0]["attack"]["name"] == "fgsm"
    assert settings["shard"] == 128
    write_json(tmp_path / "again.json", resolve(settings))
