"""The walk of Brendel and Bethge against the smallest perturbations in all norms, and its steps by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algorithms.attacks.brendel_bethge import BrendelBethge
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_with_two_classes_it_ends_at_the_optimum(norm: Any) -> None:
    model, x, y = affine(classes=2, rows=8)
    record = run(BrendelBethge(norm=norm, steps=40), model, x, y)
    ratio = record.norm / smallest(model, x, norm)
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1.002
    assert record.backwards.tolist() == [40 + 12] * 8
    assert record.forwards.tolist() == [40 + 1 + 16 + 12 + 12 + 1] * 8  # with the last point, and the start's


def test_in_l0_it_brings_most_entries_home() -> None:
    model, x, y = affine(classes=2, side=8, rows=4)
    record = run(BrendelBethge(norm="l0", steps=30), model, x, y)
    best = smallest(model, x, "l0")
    assert record.success.all()
    assert (record.norm >= best).all()
    assert (record.norm <= 2 * best + 2).all()


def test_the_first_step_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # the nearest point is (0.68, 0.74)
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().flatten()))
    run(BrendelBethge(steps=2, draws=3, radius=1.0, last_radius=0.01), model, x, y)  # radii of 1 and 0.1
    start, first, second = seen[-3:]
    assert 0 <= start @ torch.tensor([3, 4]).double() - 5 < 0.01  # just across the boundary
    push = torch.tensor([0.6, 0.8]).double()
    torch.testing.assert_close(first, torch.tensor([0.68, 0.74]).double() + 0.01 / 1.5 * push)
    torch.testing.assert_close(second, torch.tensor([0.68, 0.74]).double() + 0.001 / 1.5**2 * push)


def test_restarts_begin_at_noise_and_keep_the_best() -> None:
    model, x, y = affine(rows=8)
    once, more = (run(BrendelBethge(steps=10, restarts=count), model, x, y) for count in (1, 3))
    assert (more.norm <= once.norm).all()
    assert (more.backwards == 3 * 10 + 12).all()  # climbs are for the first search alone


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(classes=3, rows=6)
    record = run(BrendelBethge(steps=20, targeted=True), model, x, (y + 1) % 3)
    assert record.success.sum() >= 4
    assert torch.equal(model(record.x_adv).argmax(1)[record.success], ((y + 1) % 3)[record.success])


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("restarts", 0), ("draws", 0), ("radius", 0.0), ("last_radius", 4.0)]
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        BrendelBethge(**{field: value})
