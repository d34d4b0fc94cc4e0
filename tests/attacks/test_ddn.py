"""DDN against the distance to an affine model's boundary and its radius worked out step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.ddn import DDN
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


def test_the_norm_is_near_the_optimum() -> None:
    model, x, y = affine(scale=0.5)
    record = run(DDN(steps=200), model, x, y)
    ratio = record.norm / smallest(model, x, "l2")
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.06  # a radius changes by a twentieth at a step
    assert record.backwards.tolist() == [200] * len(x)


def test_the_radius_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # fooled further than 0.3 away
    seen: list[float] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(float((given[0].detach() - x).norm())))
    run(DDN(steps=4, radius=0.29), model, x, y)
    torch.testing.assert_close(torch.tensor(seen), torch.tensor([0, 0.3045, 0.289275, 0.30373875, 0.2885518125]))


def test_points_have_as_many_levels_as_asked() -> None:
    model, x, y = affine()
    x = (x * 7).round() / 7
    record = run(DDN(steps=20, levels=8), model, x, y)
    assert record.success.any()
    torch.testing.assert_close(record.x_adv * 7, (record.x_adv * 7).round(), rtol=0, atol=1e-5)


class Stepped(nn.Module):
    """Flat at the clean image: only a random direction leads away from there."""

    def forward(self, x: Tensor) -> Tensor:
        away = ((x - 0.5).flatten(1).norm(dim=1) - 0.2).clamp_min(0)
        return torch.stack([torch.full_like(away, 0.1), away], 1)


def test_a_zero_gradient_is_left_in_a_random_direction() -> None:
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    record = run(DDN(steps=30, radius=0.1), Stepped(), x, y)
    assert record.success.all()
    directions = (record.x_adv - x).flatten(1)
    assert torch.cosine_similarity(directions[0], directions[1], dim=0) < 0.9


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(scale=0.5)
    target = (y + 3) % 10
    record = run(DDN(steps=100, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()
    assert (record.norm >= smallest(model, x, "l2") - 1e-4).all()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("radius", -1.0), ("shrink", 1.5), ("levels", 1), ("levels", -2)]
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        DDN(**{field: value})
