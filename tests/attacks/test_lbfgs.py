"""The L-BFGS attack against the distance in closed form, a solver of one descent, and the least worth by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from algorithms.attacks.lbfgs import LBFGS
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run


def test_with_two_classes_it_ends_at_the_boundary() -> None:
    model, x, y = affine(classes=2, rows=8)
    record = run(LBFGS(), model, x, y)
    ratio = record.norm / smallest(model, x, "l2")
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.max() <= 1.05
    assert ratio.median() <= 1.001


def test_a_descent_ends_where_a_solver_does() -> None:
    model, x, y = affine(rows=4)
    model, x = model.double(), x.double()
    target = (y + 3) % 10
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    for i in range(4):
        clean, weight, aim = x[i].flatten().numpy(), model.weight.detach().numpy(), int(target[i])

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            logits = weight @ point  # noqa: B023 - called in this turn of the loop alone
            chance = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            off = point - clean  # noqa: B023
            cost = off @ off - 40 * np.log(chance[aim])  # noqa: B023
            return cost, 2 * off - 40 * (weight[aim] - chance @ weight)  # noqa: B023

        seen.clear()
        run(LBFGS(steps=60, searches=1, worth=40.0, targeted=True), model, x[i : i + 1], target[i : i + 1])
        ours = min(objective(point.flatten().numpy())[0] for point in seen)
        best = minimize(objective, clean, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(clean), tol=1e-12)
        assert ours == pytest.approx(best.fun, rel=1e-5)
        assert ((best.x == 0) | (best.x == 1)).any()


@pytest.mark.parametrize(("worth", "fools"), [(0.23, False), (0.25, True)])
def test_the_least_worth_by_hand(worth: float, fools: bool) -> None:
    # a perturbation of length a along (3, 4) / 5 costs a^2 - worth log sigmoid(5 a - 1.5): its slope is zero where
    # 2 a = 5 worth sigmoid(1.5 - 5 a), which is the boundary, a = 0.3, for a worth of 0.24
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    run(LBFGS(steps=40, searches=1, worth=worth), model, x, y)
    length = torch.linalg.vector_norm(seen[-1] - x)
    torch.testing.assert_close(2 * length, 5 * worth * torch.sigmoid(1.5 - 5 * length), rtol=1e-3, atol=0)
    assert bool(model(seen[-1])[0, 1] > model(seen[-1])[0, 0]) == fools


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(rows=8)
    target = (y + 3) % 10
    record = run(LBFGS(steps=200, searches=5, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(("field", "value"), [("steps", 3), ("searches", 0), ("worth", 0.0), ("memory", 0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        LBFGS(**{field: value})
