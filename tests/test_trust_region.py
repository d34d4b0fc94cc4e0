"""The steps along a boundary against a convex solver, and for l0 against all choices of entries."""

from __future__ import annotations

import itertools
from typing import Any

import cvxpy
import pytest
import torch
from torch import Tensor

from algorithms import boxes, trust_region

ENTRIES = 8
ORDER = {"l2": 2, "l1": 1, "linf": "inf"}


def drawn(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean images, points, gradients and gaps; pixels on the edges of the box and entries without slope included."""
    rng = torch.Generator().manual_seed(8)

    def pixels() -> Tensor:
        values = torch.rand(rows, 1, 2, 4, generator=rng, dtype=torch.float64)
        return torch.where(torch.rand(values.shape, generator=rng) < 0.3, values.round(), values)

    x, x_adv, gradient = pixels(), pixels(), torch.randn(rows, 1, 2, 4, generator=rng, dtype=torch.float64)
    gradient[1, 0, 0, :2] = 0
    x[2] = x_adv[2]
    return x, x_adv, gradient, 0.3 * torch.randn(rows, generator=rng, dtype=torch.float64)


def worth(gradient: Tensor, step: Tensor) -> Tensor:
    return (gradient * step).flatten(1).sum(1)


@pytest.mark.parametrize("radius", [0.15, 0.5, 2.0])
@pytest.mark.parametrize("norm", list(ORDER))
def test_it_is_the_solvers_optimum(norm: Any, radius: float) -> None:
    x, x_adv, gradient, gap = drawn(8)
    step = trust_region.step(x, x_adv, gradient, gap, norm, radius)
    for i in range(len(x)):
        ours, here, slope = step[i].flatten(), x_adv[i].flatten().numpy(), gradient[i].flatten().numpy()
        best = cvxpy.Variable(ENTRIES)
        inside = [cvxpy.norm(best, 2) <= radius, best >= -here, best <= 1 - here]
        cost = cvxpy.Minimize(cvxpy.norm(best + here - x[i].flatten().numpy(), ORDER[norm]))
        problem = cvxpy.Problem(cost, [slope @ best == float(gap[i]), *inside])
        problem.solve(solver=cvxpy.CLARABEL)
        assert torch.linalg.vector_norm(ours) <= radius + 1e-9
        assert ((x_adv[i] + step[i] >= -1e-12) & (x_adv[i] + step[i] <= 1 + 1e-12)).all()
        if problem.status == "optimal":
            assert worth(gradient, step)[i].item() == pytest.approx(float(gap[i]), abs=1e-8)
            distance = torch.linalg.vector_norm(ours + x_adv[i].flatten() - x[i].flatten(), float(ORDER[norm]))
            assert distance.item() == pytest.approx(problem.value, abs=2e-6)
        else:
            least = boxes.to_plane(x_adv[i : i + 1], -gap[i : i + 1], gradient[i : i + 1], "l2").flatten()
            torch.testing.assert_close(ours, least * min(1, radius / float(least.norm())))


@pytest.mark.parametrize("radius", [0.3, 1.0])
def test_for_l0_it_is_near_the_best_choice_of_entries(radius: float) -> None:
    x, x_adv, gradient, gap = drawn(20)
    step = trust_region.step(x, x_adv, gradient, gap, "l0", radius)
    best = torch.full_like(gap, torch.inf)
    for choice in itertools.product([False, True], repeat=ENTRIES):  # these go home, and the others to the plane
        home = torch.tensor(choice).view(1, 1, 2, 4)
        there = torch.where(home, x - x_adv, 0)
        rest = boxes.to_plane(x_adv, worth(gradient, there) - gap, gradient * ~home, "l2")
        short = (worth(gradient, there + rest) - gap).abs()
        fits = (short < 1e-8) & (torch.linalg.vector_norm((there + rest).flatten(1), dim=1) <= radius)
        best = torch.where(fits, torch.minimum(best, away(x, x_adv + there + rest)), best)
    can = best.isfinite()
    assert can.sum() > 10
    assert torch.allclose(worth(gradient, step)[can], gap[can], atol=1e-8)
    over = away(x, x_adv + step)[can] - best[can]
    assert (over >= 0).all()
    assert (over == 0).sum() >= 0.75 * can.sum()


def away(x: Tensor, x_adv: Tensor) -> Tensor:
    """How many entries are not at home."""
    return ((x_adv - x).abs() > 1e-9).flatten(1).sum(1).double()


def test_by_hand() -> None:
    x = torch.tensor([0.5, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    x_adv = torch.tensor([0.9, 0.7], dtype=torch.float64).view(1, 1, 1, 2)
    flat = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)  # along this boundary only the first moves
    still, down = torch.zeros(1).double(), torch.tensor([-0.1]).double()
    for norm in ("l2", "l1", "l0"):  # in linf the second is further away already
        step = trust_region.step(x, x_adv, flat, still, norm, 1.0)  # type: ignore[arg-type]
        torch.testing.assert_close(step.flatten(), torch.tensor([-0.4, 0.0]).double(), rtol=0, atol=1e-5)
    step = trust_region.step(x, x_adv, flat, down, "l2", 0.2)
    torch.testing.assert_close(step.flatten(), torch.tensor([-(0.03**0.5), -0.1]).double(), rtol=0, atol=1e-5)


def test_without_a_slope_it_stays_and_out_of_reach_it_goes_as_far_as_it_can() -> None:
    x, x_adv, gradient, gap = drawn(4)
    assert not trust_region.step(x, x_adv, 0 * gradient, gap + 1, "l2", 1.0).any()
    far = trust_region.step(x, x_adv, gradient, gap + 100, "l1", 10.0)
    torch.testing.assert_close(x_adv + far, torch.where(gradient == 0, x_adv, (gradient > 0).double()))
