"""The elastic-net attack against the smallest l1 norm in the box, and a margin to exceed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.attacks.ead import EAD
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run

QUICK = EAD(steps=1200, searches=6, step_size=0.01, sparsity=0.05, worth=1.0)


def test_the_norm_is_near_the_optimum() -> None:
    model, x, y = affine(rows=8)
    record = run(QUICK, model, x, y)
    ratio = record.norm / smallest(model, x, "l1")
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.05
    assert record.forwards.max() <= 1201


def test_the_first_steps_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))
    seen: list[list[float]] = []
    model.register_forward_pre_hook(lambda _, given: seen.append((given[0].detach() - x).flatten().tolist()))
    run(EAD(steps=4, searches=1, step_size=0.1, sparsity=0.31, worth=1.0), model, x, y)
    # the gradient is -(3, 4): steps of (0.3, 0.4), of which what exceeds 0.31 is left, and no momentum yet
    torch.testing.assert_close(seen[1], [0.0, 0.09])
    # then 0.1 sqrt(3 / 4) times (3, 4 - 2 * 0.09), less 0.31, and a quarter of the way from the last iterate again
    shrunk = 0.09 + 0.1 * 0.75**0.5 * (4 - 0.18) - 0.31
    torch.testing.assert_close(seen[2], [0.0, shrunk + 0.25 * (shrunk - 0.09)])


def test_a_worth_that_moves_nothing_costs_one_step() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))
    # a step times the worth times the steeper slope is 0.1 * 0.01 * 4, then ten times that, and both are below 0.31
    record = run(EAD(steps=60, searches=2, step_size=0.1, sparsity=0.31, worth=0.01), model, x, y)
    assert record.backwards.item() == 2
    assert not record.success.any()


def test_a_margin_is_paid_for() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))
    record = run(replace(QUICK, confidence=0.4), model, x, y)
    logits = model(record.x_adv)
    assert record.success.all()
    assert logits[0, 1] - logits[0, 0] > 0.4
    assert 0.475 <= record.norm.item() <= 0.49  # (1.5 + 0.4) / 4, all of it in the steeper pixel


def test_sparsity_leaves_most_pixels_alone() -> None:
    model, x, y = affine(rows=8)
    few, many = run(QUICK, model, x, y), run(replace(QUICK, sparsity=0.0), model, x, y)
    assert (few.x_adv != x).sum((1, 2, 3)).median() < 20
    assert ((many.x_adv != x).sum((1, 2, 3)) > 100).all()
    assert (few.norm < many.norm).all()


@pytest.mark.parametrize(("field", "value"), [("steps", 3), ("searches", 0), ("sparsity", 2.0), ("confidence", -1.0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        EAD(**{field: value})
