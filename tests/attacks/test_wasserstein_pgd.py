"""PGD with projected Sinkhorn iterations: the projection against its definition, and images that are in the ball."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from algorithms import sinkhorn, transport
from algorithms.attacks.wasserstein_pgd import WassersteinPGD
from algorithms.search import search
from tests.networks import Affine
from tests.transport.oracle import costs, digits, distances

SLOPE = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MODEL = Affine(torch.stack([torch.zeros_like(SLOPE), SLOPE]))


def patch() -> tuple[Tensor, Tensor]:
    """An image of 4x4 pixels, some of them black, and a point away from it."""
    rng = torch.Generator().manual_seed(8)
    x = (torch.rand(1, 1, 4, 4, generator=rng, dtype=torch.float64) - 0.2).clamp_min(0)
    return x, x + 0.3 * torch.randn(x.shape, generator=rng, dtype=torch.float64)


def nearest(x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The projection by a convex solver, without an entropy."""
    total, image = x.sum().item(), x.flatten().numpy()
    plan = cvxpy.Variable((16, 16), nonneg=True)
    price = cvxpy.sum(cvxpy.multiply(plan, costs(4, 4, 2)))
    distance = cvxpy.sum_squares(cvxpy.sum(plan, axis=0) - y.flatten().numpy())
    problem = cvxpy.Problem(cvxpy.Minimize(distance), [cvxpy.sum(plan, axis=1) == image, price <= eps * total])
    problem.solve(solver=cvxpy.CLARABEL)
    return torch.tensor(np.asarray(plan.value).sum(0)).view_as(x)


@pytest.mark.parametrize("eps", [0.05, 0.3])
def test_a_sharp_projection_is_the_nearest_point(eps: float) -> None:
    x, y = patch()
    ways = transport.routes(x, 0, 2, "l2")
    found = sinkhorn.project(x, y, ways, eps, sharpness=500.0, sweeps=1000)
    torch.testing.assert_close(found.x, nearest(x, y, eps), rtol=0, atol=0.03)
    assert distances(x, found.x.clamp_min(0), 2)[0] <= eps + 1e-2
    torch.testing.assert_close(transport.arrive(x, found.moves, ways), found.x, rtol=0, atol=0.03)


def test_a_point_inside_the_ball_stays() -> None:
    x = digits(2)[0] + 0.05
    y = 0.9 * x + 0.1 * torch.roll(x, 1, 3)
    found = sinkhorn.project(x, y, transport.routes(x, 0, 2, "l2"), 2.0, sharpness=1e5, sweeps=100)
    torch.testing.assert_close(found.x, y, rtol=0, atol=2e-3)


def test_lamberts_function_is_that_of_scipy() -> None:
    t = torch.linspace(-60, 600, 400, dtype=torch.float64)
    exact = scipy.special.lambertw(np.exp(t.numpy())).real
    torch.testing.assert_close(sinkhorn.lambert(t), torch.from_numpy(exact), rtol=1e-12, atol=0)
    assert sinkhorn.lambert(torch.tensor([1e5])).isfinite().all()  # exp(1e5) is not


@pytest.mark.parametrize("power", [1, 2])
def test_what_it_returns_is_in_the_ball_and_has_the_images_mass(power: Any) -> None:
    x, y = digits(3)[0].float(), torch.zeros(3, dtype=torch.int64)
    attack = WassersteinPGD(eps=0.3, power=power, steps=4, sweeps=30)
    record = search(attack, MODEL, x, y, rng=torch.Generator(), policy="highest loss")
    assert ((record.x_adv >= 0) & (record.x_adv <= 1)).all()
    error = (record.x_adv.double().sum((1, 2, 3)) / x.double().sum((1, 2, 3)) - 1).abs()
    assert (error < 1e-6).all()
    assert max(distances(x, record.x_adv, power)) <= 0.3 * (1 + 1e-5)
    assert ((record.x_adv - x).flatten(1).double() @ SLOPE > 0).all()


def test_the_published_form_loses_mass_to_clipping() -> None:
    x, y = digits(3)[0], torch.zeros(3, dtype=torch.int64)
    attack = WassersteinPGD(eps=0.3, steps=4, sweeps=30, repair=False)
    x_adv = search(attack, MODEL, x, y, rng=torch.Generator(), policy="highest loss").x_adv
    assert (transport.precision_error(x, x_adv) > 1e-4).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_an_image_of_zeros_and_a_radius_of_zero_stay() -> None:
    x, y = digits(3)[0].clone(), torch.zeros(3, dtype=torch.int64)
    x[1] = 0
    found = search(WassersteinPGD(steps=2, sweeps=10), MODEL, x, y, rng=torch.Generator(), policy="highest loss")
    assert torch.equal(found.x_adv[1], x[1])
    none = search(WassersteinPGD(steps=2, sweeps=10, eps=0.0), MODEL, x, y, rng=torch.Generator())
    assert torch.equal(none.x_adv, x)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"eps": -1.0}, "eps: a cost of transport per unit of mass, .*, at least 0, not -1"),
    ({"steps": 0}, "steps: a number of steps, at least 1, not 0"),
    ({"step_size": -0.1}, "step_size: a length in pixel units, at least 0, not -0.1"),
    ({"sharpness": 0.0}, r"sharpness: a weight, between 1 and 1e\+06, not 0"),
    ({"sweeps": 0}, "sweeps: a number of sweeps, at least 1, not 0"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WassersteinPGD(**fields)
