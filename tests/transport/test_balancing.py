"""Plans that keep to a budget and below the brightest pixel: against a convex solver, and a linear program."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms import balancing, transport
from tests.transport.oracle import costs, digits


def patch() -> tuple[Tensor, Tensor]:
    """An image of 4x4 pixels, some of them bright and some black, and what mass is worth at each of its pixels."""
    rng = torch.Generator().manual_seed(5)
    x = (1.3 * torch.rand(1, 1, 4, 4, generator=rng, dtype=torch.float64) - 0.3).clamp(0, 0.95)
    return x, torch.randn(x.shape, generator=rng, dtype=torch.float64)


def best_plan(x: Tensor, worth: Tensor, eps: float, temperature: float) -> Any:
    """The plan with the largest gain and entropy under all constraints, by a convex solver: rows are sources."""
    image, gain = x.flatten().numpy(), worth.flatten().numpy()
    held = image > 0
    plan = cvxpy.Variable((int(held.sum()), 16), nonneg=True)
    price = cvxpy.sum(cvxpy.multiply(plan, costs(4, 4, 2)[held]))
    value = cvxpy.sum(plan @ gain) + temperature * cvxpy.sum(cvxpy.entr(plan))
    kept = [cvxpy.sum(plan, axis=1) == image[held], price <= eps * image.sum(), cvxpy.sum(plan, axis=0) <= 1]
    cvxpy.Problem(cvxpy.Maximize(value), kept).solve(solver=cvxpy.CLARABEL)
    return held, np.asarray(plan.value)


@pytest.mark.parametrize(("eps", "temperature"), [(0.2, 0.5), (0.8, 0.3), (50.0, 0.5)])
def test_many_sweeps_find_the_convex_solvers_plan(eps: float, temperature: float) -> None:
    x, worth = patch()
    ways = transport.routes(x, 0, 2, "l2")
    gain, prices = balancing.reachable(ways.to_targets(worth), ways), balancing.free(x)
    for _ in range(400):
        prices = balancing.sweep(x, gain, ways, eps, prices, temperature)
    plan = balancing.spread(x, gain, ways, prices, temperature)
    held, exact = best_plan(x, worth, eps, temperature)
    torch.testing.assert_close(plan[0, 0].T[torch.from_numpy(held)], torch.from_numpy(exact), rtol=0, atol=1e-3)
    assert (prices.bright.max() > 0.1) == (eps > 0.5)  # some pixel would be above 1
    assert (prices.worth.item() == 0) == (eps > 10)  # cost matters unless there is enough of it


def test_a_sweep_leaves_prices_of_nothing_where_there_is_room() -> None:
    x = 0.05 * digits(2)[0]
    ways = transport.routes(x, 3, 2, "l2")
    gain = balancing.reachable(4.0 * ways.staying.to(x).expand(2, 1, -1, -1), ways)
    prices = balancing.sweep(x, gain, ways, 5.0, balancing.free(x), 1.0)
    assert prices.bright.max() == 0
    assert prices.worth.max() == 0


def test_no_mass_and_no_radius_give_finite_prices() -> None:
    x = digits(2)[0].clone()
    x[1] = 0
    ways = transport.routes(x, 5, 2, "l2")
    gain, prices = balancing.reachable(ways.to_targets(x), ways), balancing.free(x)
    for eps in (0.0, 0.3):
        for _ in range(30):
            prices = balancing.sweep(x, gain, ways, eps, prices, 0.1)
        assert prices.bright.isfinite().all()
        assert prices.worth.isfinite().all()
