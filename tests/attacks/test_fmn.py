"""FMN against closed forms for its four norms, and where the published rule stalls."""

from __future__ import annotations

import pytest
import torch

from algorithms.attacks.fmn import FMN
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


@pytest.mark.parametrize(("norm", "most"), [("linf", 1.03), ("l2", 1.04), ("l1", 1.05), ("l0", 1.8)])
def test_the_norm_is_near_the_optimum(norm: str, most: float) -> None:
    model, x, y = affine(rows=8)
    record = run(FMN(norm=norm, steps=200), model, x, y)
    ratio = record.norm / smallest(model, x, norm)
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= most


def test_the_first_radius_is_the_distance_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # the gap is -1.5, |w| = 5
    seen: list[float] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(float((given[0].detach() - x).norm())))
    run(FMN(steps=1), model, x, y)
    torch.testing.assert_close(torch.tensor(seen), torch.tensor([0.0, 0.3]))


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_pixels_at_the_box_do_not_stall_it(norm: str) -> None:
    model, x, y = affine(rows=8, scale=0.5)
    rng = torch.Generator().manual_seed(2)
    x = torch.where(torch.rand(x.shape, generator=rng) < 0.9, (x > 0.5).to(x), x)  # nine pixels of ten at 0 or 1
    y = model(x).argmax(1)
    record = run(FMN(norm=norm, steps=200), model, x, y)
    ratio = record.norm / smallest(model, x, norm)
    assert record.success.all()
    assert ratio.median() <= 1.05


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(scale=0.5, rows=8)
    target = (y + 3) % 10
    record = run(FMN(norm="linf", steps=100, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("step_size", -1.0), ("shrink", 1.5)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        FMN(**{field: value})
