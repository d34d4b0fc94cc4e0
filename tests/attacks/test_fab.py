"""FAB against closed forms: exact on affine models, in every norm, with and without a target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cvxpy
import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.fab import FAB
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run
from tests.networks import Affine, Counting

NORMS = ["linf", "l2", "l1"]


@pytest.mark.parametrize(("norm", "most"), [("linf", 1.002), ("l2", 1.001), ("l1", 1.05)])
def test_it_is_exact_on_affine_models(norm: Any, most: float) -> None:
    model, x, y = affine()
    record = run(FAB(norm=norm, steps=5), model.double(), x.double(), y)
    ratio = record.norm / smallest(model, x.double(), norm)
    assert record.success.all()
    assert ratio.min() >= 1
    assert ratio.median() <= 1.0005
    assert ratio.max() <= most


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_it_is_exact_between_two_classes(norm: Any) -> None:
    model, x, y = affine(classes=2)
    record = run(FAB(norm=norm, steps=5, targeted=True), model.double(), x.double(), 1 - y)
    ratio = record.norm / smallest(model, x.double(), norm)
    assert ratio.min() >= 1
    assert ratio.median() <= 1.0005


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_it_reaches_the_target_among_many(norm: Any) -> None:
    model, x, y = affine(rows=6)
    target = (y + 3) % 10
    record = run(FAB(norm=norm, targeted=True), model, x, target)
    assert record.success.all()
    assert (model(record.x_adv).argmax(1) == target).all()
    ratio = record.norm / torch.tensor([nearest(model, *row, norm) for row in zip(x, target.tolist(), strict=True)])
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= 1.1


def nearest(model: Affine, x: Tensor, target: int, norm: str) -> float:
    """The least norm at which the target wins against all other classes, by a convex solver."""
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    point, r = x.double().flatten().numpy(), cvxpy.Variable(x.numel())
    logits = weight @ (point + r) + bias
    limits = [logits[target] >= logits, point + r >= 0, point + r <= 1]
    order: Any = {"linf": "inf", "l2": 2, "l1": 1}[norm]
    return float(cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(r, order)), limits).solve(solver="CLARABEL"))


def test_the_first_step_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))  # the gap is -1.5
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().flatten() - 0.5))
    for norm, step in (("l2", (0.18, 0.24)), ("linf", (1.5 / 7, 1.5 / 7)), ("l1", (0.0, 0.375))):
        seen.clear()
        run(FAB(norm=norm, steps=1), model, x, y)
        torch.testing.assert_close(seen[1], 1.05 * torch.tensor(step, dtype=torch.float64))  # 5 % beyond the plane


class Bent(nn.Module):
    """Class 1 outside of a circle around (0.45, 0.45) of radius 0.4."""

    def forward(self, x: Tensor) -> Tensor:
        outside = ((x.flatten(1) - 0.45) ** 2).sum(1) - 0.16
        return torch.stack([torch.zeros_like(outside), outside * 5], 1)


@pytest.mark.parametrize(("norm", "best"), [("l2", 0.4 - 0.05 * 2**0.5), ("linf", 0.4 / 2**0.5 - 0.05)])
def test_a_curved_boundary(norm: Any, best: float) -> None:
    """The nearest point of the circle from (0.5, 0.5) lies in the direction of the diagonal in both norms."""
    x = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64).view(2, 1, 1, 2)
    x[1] -= 1e-3  # so that no symmetry helps
    record = run(FAB(norm=norm, steps=30), Bent(), x, torch.zeros(2, dtype=torch.int64))
    assert record.norm[0] == pytest.approx(best, rel=5e-3)


def test_a_radius_that_will_do_ends_the_search() -> None:
    model, x, y = affine(scale=1.0)
    most = smallest(model, x, "linf").max().item() * 1.2
    quick, whole = (run(FAB(eps=eps), model, x, y) for eps in (most, 0.0))
    assert quick.success.all()
    assert (quick.norm <= most).all()
    assert quick.forwards.max() < 10
    assert (whole.norm <= quick.norm + 1e-7).all()


def test_what_it_costs() -> None:
    model, x, y = affine(rows=4)
    counting = Counting(model)
    record = run(FAB(steps=5, rivals=3), counting, x, y)
    assert counting.forwards == 4 * (5 + 1 + 3)  # steps, the last point, and the line
    assert counting.backwards == 4 * 5 * 3
    assert record.forwards.tolist() == [9] * 4


def test_restarts_lose_nothing() -> None:
    model, x, y = affine(rows=8)
    one = FAB(norm="l2", steps=5)
    torch.testing.assert_close(run(replace(one, restarts=3), model, x, y).norm, run(one, model, x, y).norm)


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("backward", 1.5), ("most_clean", -0.1), ("overshoot", -1.0)]
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        FAB(**{field: value})
