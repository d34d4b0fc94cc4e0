"""The figures of an evaluation against numbers from the literature and numbers worked by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, final

import numpy as np
import pytest
import torch

from algorithms.attacks import Attack
from orchestrator import suites
from orchestrator.evaluations import figures
from orchestrator.evaluations.outcome import table_and_curves
from orchestrator.evaluations.parts import none_kept, rows_of, together
from orchestrator.evaluations.settings import Settings
from workers.judge import Judged


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


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Smallest(Attack):
    """An attack that looks for the smallest perturbation; only its fields are used here."""

    minimal = True
    norm = "l2"
    targeted: bool = False
    loss = "margin"
    steps = 1

    def start(self, problem: Any) -> Any:
        raise NotImplementedError

    def step(self, problem: Any, state: Any, k: int) -> Any:
        raise NotImplementedError


def judged(predicted: list[int], success: list[bool], l2: list[float]) -> Judged:
    """Five examples of class 0, by hand; in l-infinity their perturbations are a tenth as large."""
    nothing, counts = np.zeros(5), np.full(5, 7)
    return Judged(
        index=np.arange(5),
        label=np.zeros(5, np.int64),
        predicted=np.array(predicted),
        predicted_adv=np.array(success, np.int64),
        success=np.array(success),
        linf=np.array(l2) / 10,
        l2=np.array(l2),
        l1=nothing,
        l0=nothing,
        relative=np.array(l2) / 2,
        wasserstein=nothing,
        precision=nothing,
        loss=nothing,
        loss_adv=nothing,
        confidence=nothing,
        confidence_adv=nothing,
        fosc=nothing,
        fosc_box=nothing,
        forwards=counts,
        backwards=counts,
        certified=np.full(5, np.nan),
        margin=np.full(5, np.nan),
        kept=none_kept(),
    )


def test_a_minimal_attack_in_another_norm_gives_a_curve_and_still_counts() -> None:
    suite = suites.Suite(about="", attacks=(suites.Entry(label="min", attack=Smallest(), examples="all"),), name="s")
    given = Settings(
        suite=suite,
        norm="linf",
        eps=0.025,
        examples=5,
        entries=9,
        seed=0,
        weights="",
        model="",
        data="",
        surrogates={},
        guides="",
        device="cpu",
        threads=1,
    )
    wrong = [1, 0, 0, 0, 0]
    clean = rows_of(judged(wrong, [True, *[False] * 4], [0.0] * 5), "clean", 0.0)
    found = rows_of(judged(wrong, [True, True, True, False, True], [0.0, 0.1, 0.2, 9.0, 0.4]), "min", math.inf)
    table, (curve,) = table_and_curves(given, together([clean, found]))
    first, attack, worst = table
    assert (first.accuracy, worst.accuracy) == (figures.wilson(4, 5), figures.wilson(2, 5))
    assert (attack.accuracy, attack.norm, attack.median, attack.backwards) == (None, "l2", 0.2, 7.0)
    assert attack.mean == pytest.approx((0.1 + 0.2 + 0.4) / 3)  # of those that it fools among the four
    assert attack.relative is not None
    assert attack.relative.correct == pytest.approx((0.05 + 0.1 + 0.2) / 3)  # three of the four that it gets right
    assert attack.relative.everything == pytest.approx((0.05 + 0.1 + 0.2) / 4)
    assert attack.relative.failed == 1
    shares = [(point.eps, point.accuracy.value) for point in curve.points]
    assert shares == [(0.0, 0.8), (0.1, 0.6), (0.2, 0.4), (0.4, 0.2)]
    assert (curve.norm, curve.steps) == ("l2", True)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_tolerance_is_above_rounding_and_far_below_a_step(norm: Any) -> None:
    x = torch.rand(200, 3072, generator=torch.Generator().manual_seed(0))
    delta = torch.randn(200, 3072, generator=torch.Generator().manual_seed(1))
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    delta = 0.5 * delta / torch.linalg.vector_norm(delta, order, dim=1, keepdim=True)
    sizes = torch.linalg.vector_norm((x + delta).double() - x.double(), order, dim=1)
    allowed = figures.tolerance(norm, 0.5, 3072)
    assert (sizes - 0.5).max() < allowed < 0.5 / 255
