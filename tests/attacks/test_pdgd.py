"""PDGD against the distance in closed form, and what its restarts and its fine-tuning are for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.attacks.pdgd import PDGD
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


def test_the_norm_is_near_the_optimum() -> None:
    model, x, y = affine(rows=8)
    record = run(PDGD(), model, x, y)
    ratio = record.norm / smallest(model, x, "l2")
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.04
    assert record.backwards.tolist() == [500] * 8


def test_the_first_step_by_hand() -> None:
    model, x, y = two_pixels(3, -4, bias=-1.0, x=(0.5, 0.5))
    seen: list[list[float]] = []
    model.register_forward_pre_hook(lambda _, given: seen.append((given[0].detach() - x).flatten().tolist()))
    run(PDGD(steps=1, step_size=0.2), model, x, y)
    torch.testing.assert_close(seen[1], [0.2, -0.2])  # Adam's first step has the length of its rate in every pixel


def test_fine_tuning_brings_it_nearer() -> None:
    model, x, y = affine(rows=8)
    coarse = run(PDGD(steps=100, step_size=1.0), model, x, y).norm
    fine = run(PDGD(steps=200, step_size=1.0, fine_tuning=100), model, x, y).norm
    assert (fine <= coarse).all()
    assert (fine < 0.999 * coarse).any()


def test_restarts_begin_elsewhere_and_keep_the_best() -> None:
    model, x, y = affine(rows=4)
    starts: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: starts.append(given[0].detach().clone()))
    once = run(PDGD(steps=20), model, x, y).norm
    starts.clear()
    thrice = run(PDGD(steps=20, restarts=3, random_start=0.25), model, x, y).norm
    assert torch.equal(starts[0], x)
    for first in (starts[21], starts[42]):
        assert 0.2 < (first - x).abs().max() <= 0.25
    assert not torch.equal(starts[21], starts[42])
    assert (thrice <= once).all()


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(rows=8)
    target = (y + 3) % 10
    record = run(replace(PDGD(), steps=100, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("restarts", 0), ("step_size", -1.0), ("ratio", 0.0), ("fine_tuning", 500), ("random_start", 2.0)],
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        PDGD(**{field: value})
