"""The loop in one process: determinism, resumption, and controls that show the comparison can fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.curriculum import Curriculum
from algorithms.defenses.dynamic import Dynamic
from algorithms.models.mlp import Mlp
from algorithms.normalisation import Normalisation
from algorithms.updates.sgd import SGD
from orchestrator.backend import Inline
from orchestrator.loop import Interrupted
from tests.training import STEPS, WORK, Notes, bits, changed
from workers.messages import Work

WEAK = PGD(norm="l2", eps=0.5, step_size=0.2, steps=4)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bits(Inline(WORK), tmp_path_factory.mktemp("reference"))


def test_the_same_recipe_gives_the_same_bits(reference: str, tmp_path: Path) -> None:
    assert bits(Inline(WORK), tmp_path) == reference


@pytest.mark.parametrize(
    "other",
    [
        changed(seed=4),
        changed(lag=1),
        changed(lag=2),
        changed(batch=64),
        changed(batch=128, shard=64),
        changed(average=0.0),
        changed(precision="bfloat16"),
        changed(update=SGD(learning_rate=0.05, momentum=0.9, weight_decay=1e-7)),
        changed(defense=Adversarial(attack=PGD(norm="l2", eps=0.5, step_size=0.2 + 1e-6, steps=3))),
    ],
    ids=["seed", "lag 1", "lag 2", "batch", "shard", "average", "precision", "update", "attack"],
)
def test_another_recipe_gives_other_bits(reference: str, other: Work, tmp_path: Path) -> None:
    """The comparison is fine enough to see a millionth."""
    assert bits(Inline(other), tmp_path, other) != reference


def test_gradients_from_attackers_are_the_trainers_own(reference: str, tmp_path: Path) -> None:
    work = changed(exchange="gradients")
    assert bits(Inline(work), tmp_path, work) == reference


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_stopped_and_resumed_is_the_same_as_in_one_go(lag: int, tmp_path: Path) -> None:
    work = changed(lag=lag)
    whole = bits(Inline(work), tmp_path / "whole", work)
    notes = Notes()
    with pytest.raises(Interrupted, match="after step 5 of 10"):
        bits(Inline(work), tmp_path / "parts", work, notes=notes, stop=lambda: len(notes.steps) == 5)
    rest = Notes()
    assert bits(Inline(work), tmp_path / "parts", work, notes=rest) == whole
    assert notes.steps + rest.steps == list(range(STEPS))


LEARNS = Curriculum(attack=WEAK, accuracy=0.1, window=2, until=1.0)  # some windows end a lesson, others do not
MEASURES = Dynamic(attack=WEAK, c_max=None)


@pytest.mark.parametrize("defense", [LEARNS, MEASURES], ids=["curriculum", "dynamic"])
@pytest.mark.parametrize("lag", [0, 2])
def test_what_a_defense_goes_by_survives_a_stop(defense: Defense, lag: int, tmp_path: Path) -> None:
    work, whole, parts, rest = changed(defense=defense, lag=lag), Notes(), Notes(), Notes()
    expected = bits(Inline(work), tmp_path / "whole", work, notes=whole)
    with pytest.raises(Interrupted):
        bits(Inline(work), tmp_path / "parts", work, notes=parts, stop=lambda: len(parts.steps) == 5)
    assert bits(Inline(work), tmp_path / "parts", work, notes=rest) == expected
    name = "train/lesson" if defense is LEARNS else "train/criterion"
    settings = [m[name] for m in whole.metrics]
    assert settings == [m[name] for m in parts.metrics + rest.metrics]
    assert len(set(settings)) > 1


def test_attacks_hear_of_a_lesson_with_the_parameters_that_brought_it(tmp_path: Path) -> None:
    """Every third update ends a lesson; with lag 2 attacks follow it two updates later."""
    defense = Curriculum(attack=WEAK, accuracy=0.0, window=3, until=1.0)
    for lag, expected in ((0, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]), (2, [0, 0, 0, 0, 0, 1, 1, 1, 2, 2])):
        notes, work = Notes(), changed(defense=defense, lag=lag)
        bits(Inline(work), tmp_path / str(lag), work, notes=notes)
        assert [m["cost/backwards_per_example"] for m in notes.metrics] == expected


@pytest.mark.parametrize("lag", [0, 2])
def test_attacked_parameters_are_exactly_lag_updates_old(lag: int, tmp_path: Path) -> None:
    notes = Notes()
    bits(Inline(changed(lag=lag)), tmp_path, changed(lag=lag), notes=notes)
    assert [m["train/staleness"] for m in notes.metrics] == [min(lag, step) for step in range(STEPS)]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    notes = Notes()
    with pytest.raises(Interrupted):
        bits(Inline(WORK), tmp_path, notes=notes, stop=lambda: len(notes.steps) == 2)
    with pytest.raises(ValueError, match="made by another recipe"):
        bits(Inline(changed(seed=9)), tmp_path, changed(seed=9))


def test_whitening_is_fitted_once_and_travels_with_the_model(tmp_path: Path) -> None:
    model = Mlp(hidden=(8,), normalisation=Normalisation(contrast=True, whitening=0.1))
    work, notes = changed(model=model), Notes()
    whole = Inline(work)
    expected = bits(whole, tmp_path / "whole", work)
    matrix = whole.trainer.bench.model.state_dict()["0.matrix"]
    assert not torch.equal(matrix, torch.eye(64))
    assert torch.equal(whole.attacker.bench.model.state_dict()["0.matrix"], matrix)
    other = changed(model=model, exchange="gradients")
    with pytest.raises(Interrupted):
        bits(Inline(other), tmp_path / "parts", other, notes=notes, stop=lambda: len(notes.steps) == 3)
    assert bits(Inline(other), tmp_path / "parts", other) == expected


def test_a_run_that_diverges_stops_and_says_where(tmp_path: Path) -> None:
    work = dataclasses.replace(WORK, update=SGD(learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"step \d"):
        bits(Inline(work), tmp_path, work)


def test_metrics_say_what_a_step_cost(tmp_path: Path) -> None:
    notes = Notes()
    bits(Inline(WORK), tmp_path, notes=notes)
    assert {m["cost/backwards_per_example"] for m in notes.metrics} == {3.0}
    assert {m["cost/forwards_per_example"] for m in notes.metrics} == {4.0}
    assert {m["cost/backwards_saved_per_example"] for m in notes.metrics} == {0.0}
    assert all(0 <= m["train/adversarial_accuracy"] <= 1 for m in notes.metrics)


def test_a_backend_in_trouble_stops_the_run_with_a_checkpoint(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, backend = Notes(), Inline(WORK)
    monkeypatch.setattr(backend, "trouble", lambda: "its head is gone" if len(notes.steps) == 3 else "")
    with pytest.raises(RuntimeError, match=f"its head is gone; the same command goes on after step 3 of {STEPS}"):
        bits(backend, tmp_path, notes=notes)
    rest = Notes()
    assert bits(Inline(WORK), tmp_path, notes=rest) == reference
    assert rest.steps == list(range(3, STEPS))
