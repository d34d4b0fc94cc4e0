"""DeepFool against the distance to an affine model's boundaries, which it must find in one step."""

from __future__ import annotations

import pytest
import torch

from algorithms.attacks.deepfool import DeepFool
from tests.attacks.optima import affine, two_pixels
from tests.attacks.records import run


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1)])
def test_an_affine_model_takes_one_step_of_the_exact_length(norm: str, dual: int) -> None:
    model, x, y = affine()
    x = 0.3 + 0.4 * x  # far from the box, where the distance is a formula
    y = model(x).argmax(1)
    record = run(DeepFool(norm=norm), model, x, y)
    logits, w = model(x).detach(), model.weight.detach()
    distance = (logits.gather(1, y[:, None]) - logits) / torch.linalg.vector_norm(w[y][:, None] - w, dual, dim=2)
    distance[torch.arange(len(y)), y] = torch.inf
    assert record.success.all()
    torch.testing.assert_close(record.norm, 1.02 * (distance.amin(1) + 1e-4), rtol=1e-3, atol=0)
    assert record.forwards.tolist() == [2] * len(x)
    assert record.backwards.tolist() == [9] * len(x)


def test_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # the gap is -1.5, |w| = 5: 0.3 along (0.6, 0.8)
    euclidean = run(DeepFool(overshoot=0.0), model, x, y)
    torch.testing.assert_close(euclidean.x_adv.flatten(), x.flatten() + 0.3001 * torch.tensor([0.6, 0.8]).double())
    box = run(DeepFool(norm="linf", overshoot=0.0), model, x, y)
    torch.testing.assert_close(box.x_adv.flatten(), x.flatten() + 1.5 / 7 + 1e-4)


def test_it_goes_on_where_the_box_cuts_a_step_short() -> None:
    model, x, y = two_pixels(2, 1, bias=-2.6, x=(0.95, 0.2))  # the first pixel ends at 1, the second must go to 0.6
    record = run(DeepFool(), model, x, y)
    assert record.success.all()
    assert record.x_adv[0, 0, 0, 0] == 1
    assert 0.6 < record.x_adv[0, 0, 0, 1] < 0.62


def test_a_longest_step_is_kept_to() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # 0.3 away: three steps of 0.1 are not enough, for rounding
    record = run(DeepFool(longest=0.08, overshoot=0.0), model, x, y)
    torch.testing.assert_close(record.norm, torch.full_like(record.norm, 0.3001), rtol=0, atol=2e-4)
    assert record.forwards.tolist() == [8]  # two a step
    assert not run(DeepFool(longest=0.08, steps=3), model, x, y).success.any()


def test_rivals_bound_the_backward_passes() -> None:
    model, x, y = affine()
    assert run(DeepFool(rivals=3, steps=1), model, x, y).backwards.tolist() == [3] * len(x)


def test_targeted_goes_to_the_targets_boundary() -> None:
    model, x, y = affine(classes=5)
    target = (y + 2) % 5
    record = run(DeepFool(targeted=True), model, x, target)
    assert record.success.all()
    assert (model(record.x_adv).argmax(1) == target).all()
    with torch.no_grad():
        others = model(record.x_adv).scatter(1, target[:, None], -torch.inf).amax(1)
    assert (model(record.x_adv).gather(1, target[:, None])[:, 0] - others).max() < 0.5  # just past the boundary


def test_rows_fooled_already_cost_one_look() -> None:
    model, x, y = affine()
    record = run(DeepFool(), model, x, (y + 1) % 10)
    assert record.success.all()
    assert record.norm.max() == 0
    assert record.forwards.max() <= 2


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("overshoot", -0.1), ("rivals", -1), ("longest", -1.0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        DeepFool(**{field: value})
