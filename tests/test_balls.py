"""Balls: projections against a convex solver, steps against duality, random points against their distributions."""

from __future__ import annotations

import itertools

import cvxpy
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from algorithms import balls
from algorithms.streams import Streams

CONVEX = ["linf", "l2", "l1"]
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def points() -> Tensor:
    """Rows of eight numbers: random ones, and those with ties, zeros and one entry alone."""
    rng = torch.Generator().manual_seed(0)
    special = [
        [0.0] * 8,
        [1.0] * 8,
        [-0.5] * 8,
        [0.7, -0.7, 0.7, -0.7, 0.0, 0.0, 0.0, 0.0],
        [3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [2.0, 2.0, 1.0, 1.0, -1.0, -1.0, -2.0, 0.0],
        [1e-9, -1e-9, 5.0, -5.0, 5.0, 0.1, 0.1, 0.1],
    ]
    random = torch.randn(7, 8, generator=rng, dtype=torch.float64)
    return torch.cat([random, torch.tensor(special, dtype=torch.float64)]).view(-1, 2, 2, 2)


def solved(row: Tensor, norm: str, eps: float) -> np.ndarray:
    """The nearest point of the ball, by cvxpy."""
    variable = cvxpy.Variable(row.numel())
    distance = cvxpy.sum_squares(variable - row.flatten().numpy())
    problem = cvxpy.Problem(cvxpy.Minimize(distance), [cvxpy.norm(variable, ORDER[norm]) <= eps])
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return np.asarray(variable.value)


@pytest.mark.parametrize("eps", [0.5, 2.0])
@pytest.mark.parametrize("norm", CONVEX)
def test_projection_is_the_solvers(norm: balls.Norm, eps: float) -> None:
    delta = points()
    projected = balls.project(delta, norm, eps)
    expected = np.stack([solved(row, norm, eps) for row in delta])
    np.testing.assert_allclose(projected.flatten(1).numpy(), expected, atol=1e-5)
    assert (balls.size(projected, norm) <= eps + 1e-12).all()
    torch.testing.assert_close(balls.project(projected, norm, eps), projected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [*CONVEX, "l0"])
def test_points_inside_stay_bit_for_bit_and_radius_zero_is_the_centre(norm: balls.Norm) -> None:
    delta = points()
    radius = balls.size(delta, norm)  # one a row: each point lies on the sphere
    assert torch.equal(balls.project(delta, norm, radius * (1 + 1e-12)), delta)
    assert torch.equal(balls.project(delta, norm, 0.0).abs(), torch.zeros_like(delta))


@pytest.mark.parametrize("norm", [*CONVEX, "l0"])
def test_a_radius_a_row_is_one_radius_at_a_time(norm: balls.Norm) -> None:
    delta, radii = points(), torch.linspace(0, 4, 14, dtype=torch.float64).floor()
    together = balls.project(delta, norm, radii)
    for row, radius in enumerate(radii.tolist()):
        torch.testing.assert_close(together[row], balls.project(delta[row : row + 1], norm, radius)[0], rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_l0_projection_is_the_best_of_all_supports(count: int) -> None:
    delta = points()
    projected = balls.project(delta, "l0", count)
    assert (balls.size(projected, "l0") <= count).all()
    supports = list(itertools.combinations(range(8), count))
    for row, nearest in zip(delta.flatten(1), projected.flatten(1), strict=True):
        kept = max(sum(row[k].item() ** 2 for k in support) for support in supports)
        assert (nearest**2).sum().item() == pytest.approx(kept)
        assert all(b in (0, a) for a, b in zip(row.tolist(), nearest.tolist(), strict=True))


def test_of_equal_entries_l0_keeps_the_first() -> None:
    delta = torch.tensor([2.0, 1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]).view(1, 2, 2, 2)
    assert balls.project(delta, "l0", 2).flatten().tolist() == [2, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("norm", [*CONVEX, "l0"])
def test_sizes_are_numpys(norm: balls.Norm) -> None:
    delta = points()
    expected = [np.linalg.norm(row, ORDER[norm]) for row in delta.flatten(1).numpy()]
    np.testing.assert_allclose(balls.size(delta, norm).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("norm", CONVEX)
def test_the_steepest_step_has_size_one_and_attains_the_dual_norm(norm: balls.Norm) -> None:
    gradient = points()
    step = balls.steepest(gradient, norm)
    zero = gradient.flatten(1).abs().sum(1) == 0
    assert torch.equal(step[zero], gradient[zero])
    torch.testing.assert_close(balls.size(step, norm)[~zero], torch.ones(13, dtype=torch.float64))
    gained = (step * gradient).flatten(1).sum(1)
    torch.testing.assert_close(gained, balls.dual(gradient, norm))
    conjugate = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    np.testing.assert_allclose(gained.numpy(), [np.linalg.norm(g, conjugate) for g in gradient.flatten(1).numpy()])


@pytest.mark.parametrize("norm", CONVEX)
@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e-12, 1e25])
def test_the_steepest_step_does_not_depend_on_the_gradients_scale(norm: balls.Norm, scale: float) -> None:
    gradient = points()[:7]
    expected = balls.steepest(gradient, norm).float()
    torch.testing.assert_close(balls.steepest((gradient * scale).float(), norm), expected, rtol=0, atol=1e-6)


def test_equal_entries_share_the_l1_step() -> None:
    gradient = torch.tensor([[0.5, -2.0, 2.0, 2.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(balls.steepest(gradient, "l1").flatten(), torch.tensor([0, -1, 1, 1]) / 3)


def test_the_sparse_step_moves_the_largest_share_equally() -> None:
    gradient = torch.tensor([[0.1, -8.0, 3.0, 0.2, -2.0, 0.0, 1.0, 0.5]]).view(1, 2, 2, 2)
    assert balls.sparse_step(gradient, 0.25).flatten().tolist() == [0, -0.5, 0.5, 0, 0, 0, 0, 0]
    assert balls.sparse_step(gradient, 0.0).flatten().tolist() == [0, -1, 0, 0, 0, 0, 0, 0]  # at least one
    whole = balls.sparse_step(gradient, 1.0).flatten()
    torch.testing.assert_close(whole, gradient.flatten().sign() / 7)  # the zero does not move
    assert not balls.sparse_step(torch.zeros(1, 2, 2, 2), 0.5).any()


# Random points


def draw(norm: balls.Norm, eps: float | Tensor, rows: int = 4000) -> Tensor:
    streams = Streams.draw(torch.Generator().manual_seed(3), rows)
    return balls.random_point(torch.zeros(rows, 1, 2, 3, dtype=torch.float64), norm, eps, streams).flatten(1)


@pytest.mark.parametrize("norm", CONVEX)
def test_random_points_fill_the_ball_uniformly(norm: balls.Norm) -> None:
    delta = draw(norm, 0.3) / 0.3
    inside = torch.linalg.vector_norm(delta, ORDER[norm], dim=1).numpy()
    assert inside.max() <= 1
    assert stats.kstest(inside**6, "uniform").pvalue > 0.01  # the share of the volume within the radius
    marginal = {  # of one coordinate of a point uniform in the ball of six dimensions
        "linf": stats.uniform(-1, 2),
        "l2": stats.beta(3.5, 3.5, loc=-1, scale=2),
        "l1": None,
    }[norm]
    for coordinate in delta.T.numpy():
        if marginal is None:
            assert stats.kstest(np.abs(coordinate), stats.beta(1, 6).cdf).pvalue > 0.005
        else:
            assert stats.kstest(coordinate, marginal.cdf).pvalue > 0.005
        assert stats.binomtest(int((coordinate > 0).sum()), len(coordinate)).pvalue > 0.005
    covariance = np.cov(delta.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.02


@pytest.mark.parametrize("norm", CONVEX)
def test_random_points_have_a_radius_a_row_and_a_stream_a_row(norm: balls.Norm) -> None:
    x, radii = torch.zeros(3, 1, 2, 3), torch.tensor([0.0, 0.1, 10.0])
    streams, rows = Streams.draw(torch.Generator().manual_seed(1), 3), torch.tensor([2, 1])
    delta = balls.random_point(x, norm, radii, streams)
    assert not delta[0].any()
    assert (balls.size(delta, norm) <= radii).all()
    assert torch.equal(balls.random_point(x[rows], norm, radii[rows], streams.select(rows)), delta[rows])
    assert torch.equal(balls.random_point(x, norm, radii, streams), delta)
    assert not torch.equal(balls.random_point(x, norm, radii, streams, 1), delta)


def test_there_is_no_random_point_in_an_l0_ball() -> None:
    with pytest.raises(ValueError, match="no random point in an l0 ball: choose linf, l2 or l1"):
        draw("l0", 3.0, 2)
