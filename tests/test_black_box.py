"""Evaluations whose attacks need companions: a surrogate that they are made on, and images that guide them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save as pack

from algorithms.attacks.feature_adversary import FeatureAdversary
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.transfer import Transfer
from algorithms.companions import WithGuides, WithSurrogate, guides_of, surrogate_of
from algorithms.search import search
from orchestrator import evaluation
from orchestrator.config import RecipeError, load_recipe, resolve
from orchestrator.evaluation import evaluate, measure
from orchestrator.evaluations.targets import Target
from orchestrator.folders import write_atomically, write_json
from orchestrator.listener import Silent
from orchestrator.recipe import Evaluation, Recipe, Workers
from orchestrator.suites import load_suite
from orchestrator.weights import fresh_model
from tests.linear import EPS, Points, W, gaps, target, watch
from workers.cache import open_split
from workers.companions import guides
from workers.judge import JudgeTask, judge

OTHER = np.array([1.0, -2.0, -3.0, 0.5, 0.5, 1.5, -1.0, 2.0, -0.25])  # the surrogate's weights: three signs differ


def other(run: Path) -> Target:
    """The surrogate as a run."""
    weights = {"w": torch.tensor(OTHER, dtype=torch.float32)}
    return target(run)._replace(weights=weights)


def test_a_black_box_table_is_what_the_closed_form_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the surrogate, a step goes by its weights' signs: that moves the model's gap by eps * w . sign(other)."""
    tasks = watch(monkeypatch, tmp_path).tasks
    monkeypatch.setattr(evaluation, "surrogates_of", lambda suite, folder: {"b": other(tmp_path / "b")})
    outcome = measure(target(tmp_path / "a", suite="demo", surrogate="b"), Silent())
    images = Points().read("test").images
    gap, shift = gaps(images), EPS * float(W @ np.sign(OTHER))
    right = np.arange(len(images)) % 10 != 0
    stands = right & (np.sign(gap - shift * np.sign(gap)) == np.sign(gap))
    values = {row.attack: row.accuracy.value for row in outcome.table if row.accuracy}
    assert values["FGSM from b"] == pytest.approx(stands.mean())
    white = right & (np.abs(gap) > EPS * np.abs(W).sum())
    assert white.mean() < stands.mean() < 0.9
    assert (outcome.suite, outcome.shown) == ("demo-black-box", "PGD-20 from b")
    assert {surrogate_of(task.attack) for task in tasks if task.attack} == {"b"}


def run_at(path: Path, seed: int, suite: str = "demo") -> Recipe:
    """A finished run on the bundled digits, untrained: a recipe on the disk can only name what its readers have."""
    asked = Evaluation(suite=suite, examples=40, eps=0.1)
    recipe = Recipe(seed=seed, workers=Workers(backend="inline"), evaluation=asked)
    write_json(path / "recipe.json", resolve(recipe))
    write_atomically(path / "model.safetensors", pack(fresh_model(recipe).state_dict()))
    return recipe


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the runs `a` and `b`."""
    watch(monkeypatch, tmp_path)
    folder = tmp_path / "runs"
    run_at(folder / "a", 1)
    run_at(folder / "b", 2)
    return folder


def test_a_surrogate_is_found_beside_the_run_and_attacked_in_its_place(runs: Path) -> None:
    recipe = run_at(runs / "a", 1)
    asked = dataclasses.replace(recipe.evaluation, surrogate="b")
    outcome = evaluate(runs / "a", asked)
    model, surrogate = fresh_model(recipe), fresh_model(dataclasses.replace(recipe, seed=2))
    split = open_split(recipe.dataset, "test")
    x, y = split.images(np.arange(40)), split.labels(np.arange(40))
    correct = model.eval()(x).argmax(1) == y
    attack = Transfer(attack=FGSM(eps=0.1))
    record = search(attack, WithSurrogate(model, surrogate), x[correct], y[correct], rng=torch.Generator())
    rows = pq.read_table(outcome.parquet).to_pandas()
    mine = rows[(rows.attack == "FGSM from b") & (rows.label == rows.predicted)]
    assert len(mine) > 0
    assert mine.success.tolist() == record.success.tolist()
    assert mine.forwards.tolist() == record.forwards.tolist()
    settings = json.loads((outcome.folder / "settings.json").read_text())
    assert settings["surrogates"]["b"]["model"]["name"] == "cnn4"
    assert outcome.folder.name.startswith("demo-black-box-")


def test_other_weights_of_the_surrogate_are_another_evaluation(runs: Path) -> None:
    asked = dataclasses.replace(run_at(runs / "a", 1).evaluation, surrogate="b")
    first = evaluate(runs / "a", asked)
    assert evaluate(runs / "a", asked) == first
    run_at(runs / "b", 3)
    assert evaluate(runs / "a", asked).folder != first.folder
    by_path = dataclasses.replace(asked, surrogate=str(runs / "b" / "model.safetensors"))
    assert evaluate(runs / "a", by_path).table[1].accuracy == evaluate(runs / "a", asked).table[1].accuracy


@pytest.mark.parametrize(
    ("surrogate", "said"),
    [("c", r"surrogate: no run 'c' here or in .*runs; runs there: a, b"), ("wide", r"surrogate: a model for 10 cl")],
)
def test_a_surrogate_that_cannot_be_used_is_named(runs: Path, surrogate: str, said: str) -> None:
    run_at(runs / "wide", 1)
    weights = {name: t[:1].contiguous() for name, t in fresh_model(Recipe()).state_dict().items() if t.dim()}
    write_atomically(runs / "wide" / "model.safetensors", pack(weights))
    asked = dataclasses.replace(run_at(runs / "a", 1).evaluation, surrogate=surrogate)
    with pytest.raises(ValueError, match=said):
        evaluate(runs / "a", asked)


def test_a_recipe_may_not_name_a_surrogate_far_away(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[evaluation]\nsurrogate = "/etc/passwd"\n')
    with pytest.raises(RecipeError, match=r"evaluation.surrogate: a path below"):
        load_recipe(path)


MIXED = """
about = "one on a run of its own, one on the model, one on what the evaluation names"
[[attacks]]
label = "own"
attack = {name = "transfer", surrogate = "x", attack = {name = "pgd", steps = 3, step_size = "eps/2"}}
[[attacks]]
label = "inner"
attack = {name = "transfer", attack = {name = "fgsm"}}
[[attacks]]
label = "targeted"
targets = 2
attack = {name = "pgd", targeted = true}
[curve]
attack = "inner"
radii = ["eps/2"]
"""


def test_attacks_that_name_a_surrogate_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "mixed.toml"
    path.write_text(MIXED)
    plain, made = load_suite(str(path), "l2", 0.5), load_suite(str(path), "l2", 0.5, "y")
    inner = plain.attacks[1].attack
    assert isinstance(inner, Transfer)
    assert (inner.norm, inner.eps) == ("l2", 0.5)  # the evaluation's go to the attack inside
    assert [surrogate_of(entry.attack) for entry in plain.attacks] == ["x", "", ""]
    assert [surrogate_of(entry.attack) for entry in made.attacks] == ["x", "y", "y"]
    assert [entry.label for entry in made.attacks] == ["own", "inner from y", "targeted from y"]
    assert made.attacks[2].attack.targeted
    assert (made.shown, [entry.label for entry in made.sweep]) == ("inner from y", ["inner at 0.25 from y"])
    assert made.attacks[1].attack == Transfer(attack=inner.attack, surrogate="y")


GUIDED = """
about = "towards images of other classes"
[[attacks]]
label = "features"
examples = "all"
attack = {name = "feature_adversary", guides = 2, steps = 2, step_size = "eps/2"}
"""


def test_guides_come_from_the_training_part(runs: Path, tmp_path: Path) -> None:
    suite = tmp_path / "guided.toml"
    suite.write_text(GUIDED)
    recipe = run_at(runs / "a", 1)
    outcome = evaluate(runs / "a", dataclasses.replace(recipe.evaluation, suite=str(suite)))
    model, train, test = fresh_model(recipe), open_split(recipe.dataset, "train"), open_split(recipe.dataset, "test")
    chosen = guides(train, 2)
    assert train.labels(chosen).tolist() == [label for label in range(10) for _ in range(2)]
    attack = FeatureAdversary(norm="linf", eps=0.1, steps=2, step_size=0.05, guides=2)
    assert guides_of(Transfer(attack=attack)) == 2
    task = JudgeTask("test", np.arange(40), attack, "features", recipe.seed, 0, 0)
    alone = judge(model, test, task, WithGuides(model, train.images(chosen), train.labels(chosen)))
    rows = pq.read_table(outcome.parquet).to_pandas()
    mine = rows[rows.attack == "features"]
    assert mine.loss_adv.tolist() == pytest.approx(alone.loss_adv.tolist(), rel=1e-5)
    assert alone.backwards.sum() > 0
    assert json.loads((outcome.folder / "settings.json").read_text())["guides"] == train.digest
    with pytest.raises(ValueError, match=r"guides: 2 images of each class have not come"):
        judge(model, test, task)


def test_the_first_of_each_class_and_all_where_there_are_fewer(runs: Path) -> None:
    split = open_split(Points(), "train")
    labels = split.labels(np.arange(len(split))).numpy()
    expected = [*np.flatnonzero(labels == 0)[:3], *np.flatnonzero(labels == 1)[:3]]
    assert guides(split, 3).tolist() == expected
    assert sorted(guides(split, 1000).tolist()) == list(range(len(split)))
