"""Projections onto a ball and the box at once, and least steps to a plane inside the box, against a convex solver."""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms import boxes
from tests.networks import images

Array = NDArray[np.float64]
ORDER: dict[str, Any] = {"linf": "inf", "l2": 2, "l1": 1}
CASES = ["random", "equal", "zero", "one", "tiny", "large"]


def perturbation(case: str, x: Tensor) -> Tensor:
    delta = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    changed = {
        "random": delta,
        "equal": torch.full_like(delta, 0.7),
        "zero": torch.zeros_like(delta),
        "one": torch.where(torch.arange(36).view(6, 6) == 8, delta, 0),
        "tiny": delta * 1e-3,
        "large": delta * 1e3,
    }
    return changed[case]


def solved(objective: Any, r: cvxpy.Variable, x: Array, *limits: Any) -> Array:
    problem = cvxpy.Problem(cvxpy.Minimize(objective), [x + r >= 0, x + r <= 1, *limits])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    value: Array = r.value
    return value


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 0.8), ("l1", 2.0)])
def test_it_is_the_nearest_point_of_ball_and_box(norm: Any, eps: float, case: str) -> None:
    x = images(2, dtype=torch.float64)
    delta = perturbation(case, x)
    found = boxes.project(x, delta, norm, eps)
    for clean, given, row in zip(x.flatten(1).numpy(), delta.flatten(1).numpy(), found.flatten(1).numpy(), strict=True):
        r = cvxpy.Variable(36)
        scale = max(1.0, np.abs(given).max())
        best = solved(cvxpy.sum_squares((r - given) / scale), r, clean, cvxpy.norm(r, ORDER[norm]) <= eps)
        assert np.linalg.norm(row - given) <= np.linalg.norm(best - given) + 1e-6 * scale
        assert np.linalg.norm(row, float(ORDER[norm])) <= eps * (1 + 1e-9)
        assert ((clean + row >= -1e-12) & (clean + row <= 1 + 1e-12)).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_in_single_precision_it_keeps_to_ball_and_box(norm: Any) -> None:
    rng = torch.Generator().manual_seed(4)
    x = torch.rand(16, 3, 16, 16, generator=rng).mul(1.6).sub(0.3).clamp(0, 1)
    delta = torch.randn(x.shape, generator=rng)
    found = boxes.project(x, delta, norm, 1.5)
    size = torch.linalg.vector_norm(found.double().flatten(1), float(ORDER[norm]), dim=1)
    assert (size <= 1.5 * (1 + 1e-6)).all()
    assert (size >= 0.999 * min(1.5, 1.0 if norm == "linf" else 1.5)).all()
    assert ((x + found).clamp(0, 1) - (x + found)).abs().max() <= 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("gap", [-1.5, 2.0, 0.0])
def test_the_least_step_to_a_plane(norm: Any, gap: float) -> None:
    x = images(3, dtype=torch.float64)
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    normal[:, :, 0] = 0
    steps = boxes.to_plane(x, torch.full((3,), gap, dtype=torch.float64), normal, norm)
    for clean, w, row in zip(x.flatten(1).numpy(), normal.flatten(1).numpy(), steps.flatten(1).numpy(), strict=True):
        r = cvxpy.Variable(36)
        best = solved(cvxpy.norm(r, ORDER[norm]), r, clean, gap + w @ r == 0)
        assert np.linalg.norm(row, float(ORDER[norm])) <= np.linalg.norm(best, float(ORDER[norm])) + 1e-6
        assert gap + w @ row == pytest.approx(0, abs=1e-9)
        assert ((clean + row >= -1e-12) & (clean + row <= 1 + 1e-12)).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_plane_out_of_reach_gives_the_nearest_corner(norm: Any) -> None:
    x = images(2, dtype=torch.float64)
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = x + boxes.to_plane(x, torch.full((2,), -1e3, dtype=torch.float64), normal, norm)
    torch.testing.assert_close(found, (normal > 0).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_slopes_whose_squares_vanish(norm: Any) -> None:
    x = images(2)
    normal = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    plain = boxes.to_plane(x, torch.full((2,), -1.0), normal, norm)
    tiny = boxes.to_plane(x, torch.full((2,), -1e-25), normal * 1e-25, norm)
    torch.testing.assert_close(tiny, plain, rtol=1e-4, atol=1e-6)
    assert not boxes.to_plane(x, torch.full((2,), -1.0), torch.zeros_like(x), norm).any()


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="choose linf, l2 or l1"):
        boxes.project(images(1), images(1), "l0", 1.0)
