"""The benchmarks' own arithmetic: passes are counted, what breaks the rules has not fooled, the floor is the passes."""

from __future__ import annotations

import importlib
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.attacks.ddn import DDN
from algorithms.attacks.deepfool import DeepFool
from algorithms.attacks.pgd import PGD
from algorithms.attacks.spsa import SPSA
from algorithms.models.cnn4 import Cnn4
from algorithms.search import search
from benchmarks import networks
from benchmarks.__main__ import known
from benchmarks.attack_floor import Recorder, over_floor, replay, stopping_early
from benchmarks.contests import Contest, budget, minimal
from benchmarks.data import folder
from benchmarks.peers import Counter, compared, fight, ours, series, told
from benchmarks.rivals import foolbox, installed
from tests.networks import classes_of, images, small

PGD_3 = PGD(eps=0.1, step_size=0.05, steps=3)
LAYERS = (
    2 * 3 * 9 * 2 * 1024,
    2 * 2 * 9 * 4 * 256,
    2 * 256 * 8,
    2 * 8 * 10,
)  # operations of a cnn4 of width 2 on 3x32x32
TINY = 10 * 2 * sum(LAYERS) + sum(LAYERS) + 3 * sum(LAYERS) - LAYERS[0]  # PGD-10, a last look, and the update


@pytest.mark.parametrize("name", known())
def test_every_benchmark_has_a_run(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)


def test_passes_are_counted_by_hooks() -> None:
    model, x = small(), images(6)
    y = classes_of(model, x)
    record = search(DeepFool(), model, x, y, rng=torch.Generator().manual_seed(0))
    fought = fight(ours(DeepFool()), DeepFool(), model, x, y)
    assert fought.forwards == pytest.approx(record.forwards.double().mean().item())
    assert fought.backwards == pytest.approx(record.backwards.double().mean().item())
    assert fought.norms.tolist() == pytest.approx(record.norm.tolist(), rel=1e-5)
    assert not model._forward_hooks


@pytest.mark.parametrize("change", [0.11, -0.2, 2.0, math.nan])
def test_who_leaves_the_ball_or_the_box_has_not_fooled(change: float) -> None:
    model, x = small(), images(6)
    wrong = (classes_of(model, x) + 1) % 4  # anything fools
    fought = fight(lambda model, x, y: x + change, PGD_3, model, x, wrong)
    assert fought.norms.isinf().all()
    assert told(PGD_3, fought).startswith("100.0 % stand")
    honest = fight(lambda model, x, y: x, PGD_3, model, x, wrong)
    assert honest.norms.tolist() == [0] * 6


@pytest.mark.parametrize("attack", [DeepFool(), SPSA(steps=1, samples=4)])
def test_the_floor_is_the_attacks_own_passes(attack: Attack) -> None:
    model, x = small(), images(6)
    y = classes_of(model, x)
    recorder = Recorder(model)
    record = search(attack, recorder, x, y, rng=torch.Generator().manual_seed(0))
    with Counter(model) as counter:
        replay(model, x, y, recorder.passes)
    assert counter.forwards == int(record.forwards.sum())
    assert counter.backwards == int(record.backwards.sum())


def test_an_attack_on_a_small_model_costs_more_than_its_passes() -> None:
    model, x = small(), images(6)
    assert all(row.ratio > 1 for row in over_floor("DDN", DDN(steps=3), model, x, classes_of(model, x), pairs=1))


def test_every_contest_has_its_own_name_and_rivals() -> None:
    contests = [*budget.contests(), *minimal.contests()]
    assert len({contest.name for contest in contests}) == len(contests)
    assert all(contest.theirs for contest in contests)
    assert {contest.ours.minimal for contest in budget.contests()} == {False}
    assert {contest.ours.minimal for contest in minimal.contests()} == {True}


def test_seeds_are_fights_of_their_own_and_count_together() -> None:
    model, x = small(), images(6)
    y = classes_of(model, x)
    first, second = (fight(ours(PGD_3), PGD_3, model, x, y, seed=seed) for seed in range(2))
    both = series(ours(PGD_3), Contest("PGD", PGD_3, {}, seeds=2), (model, x, y))
    assert both.norms.tolist() == [*first.norms.tolist(), *second.norms.tolist()]
    assert both.forwards == pytest.approx((first.forwards + second.forwards) / 2)


@pytest.mark.skipif(not installed("foolbox"), reason="needs foolbox")
def test_a_black_image_stands_for_a_failure() -> None:
    model, x = small(), images(6)
    found = foolbox("EADAttack", steps=1, binary_search_steps=1)(model, x, classes_of(model, x))
    torch.testing.assert_close(found, x)  # foolbox's own are black: one step of a tiny worth moves nothing


@pytest.mark.skipif(not installed("foolbox"), reason="needs foolbox")
def test_fgsm_is_the_same_attack_everywhere() -> None:
    class Ten(nn.Module):
        """Ten classes, as ART is told."""

        def forward(self, x: Tensor) -> Tensor:
            return (x.flatten(1) @ weight).softmax(1).log()

    weight = torch.randn(36, 10, generator=torch.Generator().manual_seed(2))
    x = images(16)
    y = classes_of(Ten(), x)
    rows = compared(budget.contests()[0], (Ten(), x, y))
    assert rows
    for row in rows:
        mine, theirs = row.note.split("; theirs ")
        assert mine.partition(",")[0] == theirs.partition(",")[0]


def test_stopping_early_is_measured_against_all_passes() -> None:
    model, x = small(), images(6)
    wrong = (classes_of(model, x) + 1) % 4  # all fooled at the first look: one pass of 30
    row = stopping_early("PGD", PGD(eps=0.1, step_size=0.05, steps=30), model, x, wrong)
    assert row.note == "100% fooled"
    assert row.ratio < 1


@pytest.mark.skipif(not folder("cifar10"), reason="needs the Parquet files of CIFAR-10")
def test_a_networks_training_is_measured_in_images_and_in_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = networks.Size(Cnn4(width=2, hidden=8), {"cpu": 2, "cuda": 2})
    monkeypatch.setattr(networks, "NETWORKS", {"tiny": tiny})
    monkeypatch.setattr(networks, "PAIRS", 1)
    with ThreadPoolExecutor(1) as plain:
        rows = networks.rows("tiny", plain, plain, best=1e3)
    assert [row.what for row in rows][:2] == ["tiny, examples in float32", "tiny, examples in bfloat16"]
    for row in rows:
        images, share = row.note.split(" images a second, ")
        assert float(images) == pytest.approx(2 / row.seconds, rel=0.01)
        assert float(share.split("%")[0]) / 100 * row.seconds * 1e3 == pytest.approx(2 * TINY, rel=0.01)
