"""Sigma-zero against the fewest pixels that change an affine model's class, and one step of it by hand."""

from __future__ import annotations

import pytest
import torch

from algorithms.attacks.sigma_zero import SigmaZero
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


def test_few_entries_change() -> None:
    model, x, y = affine(rows=8)
    record = run(SigmaZero(steps=300), model, x, y)
    ratio = record.norm / smallest(model, x, "l0")
    assert record.success.all()
    assert ratio.min() >= 1
    assert ratio.median() <= 1.3


def test_steps_by_hand() -> None:
    model, x, y = two_pixels(1.0, 0.25, bias=-1.0, x=(0.5, 0.5))
    seen: list[list[float]] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().flatten().tolist()))
    run(SigmaZero(steps=3, step_size=0.125, threshold=0.1, threshold_rate=0.1), model, x, y)
    # Adam's first step moves both pixels by 0.125, more than the threshold. The class does not change, so the second
    # step goes on, as long as the first, and the third, of 0.125 (0.1 + 0.9 (1 + cos(pi / 3)) / 2) = 0.0969; the smooth
    # count's slope, added from the second step on, makes them a little shorter
    torch.testing.assert_close(seen[1], [0.625, 0.625], rtol=0, atol=1e-6)
    second, third = seen[2][0] - seen[1][0], seen[3][0] - seen[2][0]
    assert 0.97 * 0.125 < second < 0.125
    assert 0.97 * 0.0969 < third < 0.0969
    assert 0.625 > seen[2][1] > seen[3][1] == 0.5  # a quarter as useful, it gives way to the count and is given up


def test_the_threshold_keeps_small_changes_out() -> None:
    model, x, y = affine(rows=8)
    record = run(SigmaZero(steps=1, step_size=0.1), model, x, y)  # the first step is of 0.1, the threshold 0.3
    assert not record.success.any()
    assert run(SigmaZero(steps=1, step_size=0.4), model, x, y).success.all()


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(rows=8)
    target = (y + 3) % 10
    record = run(SigmaZero(steps=100, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("step_size", -1.0), ("smoothness", 0.0), ("threshold", 2.0)]
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SigmaZero(**{field: value})
