"""SparseFool against the smallest l1 norm in the box, and its step by hand."""

from __future__ import annotations

import pytest
import torch

from algorithms.attacks.sparsefool import SparseFool
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


def test_the_norm_is_near_the_optimum() -> None:
    model, x, y = affine(rows=16)
    record = run(SparseFool(), model, x, y)
    ratio = record.norm / smallest(model, x, "l1")
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1.06
    assert (record.x_adv != x).sum((1, 2, 3)).max() <= 10
    assert record.backwards.tolist() == (record.forwards // 2 * 9).tolist()


def test_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # the gap is -1.5 and |w| = 5
    record = run(SparseFool(), model, x, y)
    # the walk ends 1.02 * 0.3001 away in l2, where the gap is 1.02 * 1.5005 higher: by the second pixel alone, 4 times
    # less, and again 2 % more
    moved = 1.02 * 1.02 * 1.5005 / 4
    torch.testing.assert_close(record.x_adv.flatten(), torch.tensor([0.5, 0.5 + moved]).double())
    assert record.forwards.tolist() == [4]
    further = run(SparseFool(extension=1.2), model, x, y)
    torch.testing.assert_close(further.x_adv.flatten(), torch.tensor([0.5, 0.5 + 1.2 * moved]).double())


def test_what_the_box_holds_back_goes_to_the_next_pixel() -> None:
    model, x, y = two_pixels(3, 4, bias=-6.2, x=(0.5, 0.8))  # 0.2 of the second pixel are worth 0.8, 0.7 are left
    record = run(SparseFool(), model, x, y)
    assert record.success.all()
    assert record.x_adv[0, 0, 0, 1] == 1
    assert 0.5 + 0.7 / 3 < record.x_adv[0, 0, 0, 0] < 0.5 + 0.75 / 3


def test_points_of_the_walk_are_no_candidates() -> None:
    model, x, y = affine(rows=8)
    record = run(SparseFool(steps=1), model, x, y)  # one step over the boundary, but a dense one
    assert not record.success.any()
    assert torch.equal(record.x_adv, x)


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(rows=8)
    target = (y + 3) % 10
    record = run(SparseFool(targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("extension", 0.5), ("overshoot", -0.1), ("rivals", -1)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SparseFool(**{field: value})
