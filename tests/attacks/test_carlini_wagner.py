"""Carlini and Wagner's attack against closed forms: the distance, with a margin to exceed, and pixels at the box."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.attacks.carlini_wagner import CarliniWagner
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run

QUICK = CarliniWagner(steps=600, searches=6, step_size=0.1, worth=0.1)


def test_the_norm_is_near_the_optimum() -> None:
    model, x, y = affine(scale=0.5)
    record = run(QUICK, model, x, y)
    ratio = record.norm / smallest(model, x, "l2")
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.04
    assert record.forwards.max() <= 601


def test_a_margin_is_paid_for() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # the gap is -1.5, |w| = 5
    record = run(replace(QUICK, confidence=0.5), model, x, y)
    logits = model(record.x_adv)
    assert record.success.all()
    assert logits[0, 1] - logits[0, 0] > 0.5
    assert 0.4 <= record.norm.item() <= 0.42  # (1.5 + 0.5) / 5


def test_no_margin_counts_for_less() -> None:
    model, x, y = two_pixels(1, 1, bias=-1.7, x=(0.5, 0.5))  # the margin is 0.3 at most
    record = run(CarliniWagner(steps=300, searches=3, step_size=0.1, confidence=0.5), model, x, y)
    assert not record.success.any()
    assert torch.equal(record.x_adv, x)


def test_pixels_at_the_box_move() -> None:
    model, x, y = two_pixels(2, -2, bias=-1.0, x=(0.0, 1.0))  # both have to go inward
    record = run(CarliniWagner(steps=600, searches=2, step_size=0.1, worth=1.0), model, x, y)
    assert record.success.all()
    assert record.x_adv.flatten()[0] > 0.5
    assert record.x_adv.flatten()[1] < 0.5


def test_all_logits_may_be_negative() -> None:
    model, x, y = affine(scale=0.5, rows=4)
    clean = run(QUICK, model, x, y).norm
    model.bias.data -= 50
    torch.testing.assert_close(run(QUICK, model, x, y).norm, clean, rtol=0.02, atol=0)


def test_rows_leave_after_their_last_descent() -> None:
    model, x, _ = affine(scale=0.5, rows=6)
    model.weight.data[:, 98:] = 0
    x[:3, :, :7] = 0.5  # some rows have a small way to go
    record = run(CarliniWagner(steps=1000, searches=2, step_size=0.1, worth=1.0), model, x, model(x).argmax(1))
    assert record.forwards.min() < 1000  # descents end when they no longer get lower
    assert len(set(record.forwards.tolist())) > 1


@pytest.mark.parametrize(("field", "value"), [("steps", 3), ("searches", 0), ("worth", 0.0), ("confidence", -1.0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        CarliniWagner(**{field: value})
