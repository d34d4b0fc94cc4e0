"""The loop in one process: determinism, resumption, and controls that show the comparison can fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from algorithms.updates.sgd import SGD
from orchestrator.backend import Inline
from orchestrator.loop import Interrupted
from tests.training import STEPS, WORK, Notes, bits, changed
from workers.messages import Work


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


def test_a_run_that_diverges_stops_and_says_where(tmp_path: Path) -> None:
    work = dataclasses.replace(WORK, update=SGD(learning_rate=1e30))
    with pytest.raises(FloatingPointError, match=r"step \d"):
        bits(Inline(work), tmp_path, work)


def test_metrics_say_what_a_step_cost(tmp_path: Path) -> None:
    notes = Notes()
    bits(Inline(WORK), tmp_path, notes=notes)
    assert {m["cost/backwards_per_example"] for m in notes.metrics} == {3.0}
    assert {m["cost/forwards_per_example"] for m in notes.metrics} == {4.0}
    assert all(0 <= m["train/adversarial_accuracy"] <= 1 for m in notes.metrics)
