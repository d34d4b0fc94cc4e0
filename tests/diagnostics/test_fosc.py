"""The first-order condition against all vertices, two solvers, and sequences worked by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from torch import Tensor

from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.balls import Norm
from algorithms.diagnostics.fosc import farthest, fosc, weak_conditions
from algorithms.search import Visit, search
from tests.networks import Affine, classes_of, images, small

EPS: dict[Norm, float] = {"linf": 0.2, "l2": 0.35, "l1": 0.5}
Array = NDArray[np.float64]


def points(rows: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images of 8 pixels, some of them 0 or 1; points in the smallest of the balls; gradients, some entries 0."""
    rng = torch.Generator().manual_seed(2)
    draw = torch.rand(3, rows, 1, 2, 4, generator=rng, dtype=torch.float64)
    x = (1.4 * draw[0] - 0.2).clamp(0, 1)
    x_adv = (x + 0.06 * (2 * draw[1] - 1)).clamp(0, 1)
    gradient = torch.where(draw[2] > 0.85, 0.0, 4 * draw[2] - 2)
    return x.to(dtype), x_adv.to(dtype), gradient.to(dtype)


def largest(ends: Array, x_adv: Array, gradient: Array) -> float:
    """Of <z - x_adv, gradient> over the vertices z of a box, tried one by one; ends (2, pixels)."""
    vertices = np.array(list(itertools.product(*ends.T)))
    return float(((vertices - x_adv) @ gradient).max())


@pytest.mark.parametrize("box", [False, True])
def test_in_linf_it_is_the_best_vertex(box: bool) -> None:
    x, x_adv, gradient = points()
    found = fosc(x, x_adv, gradient, "linf", 0.2, box=box)
    for row, (middle, point, slope) in enumerate(
        zip(*(t.flatten(1).numpy() for t in (x, x_adv, gradient)), strict=True)
    ):
        ends = np.stack([middle - 0.2, middle + 0.2])
        expected = largest(ends.clip(0, 1) if box else ends, point, slope)
        assert found[row].item() == pytest.approx(expected, abs=1e-12)
        assert expected >= 0


def test_over_the_ball_it_is_equation_4_with_the_dual_norm() -> None:
    x, x_adv, gradient = points()
    for norm, order in (("linf", 1), ("l2", 2), ("l1", np.inf)):
        slope, delta = gradient.flatten(1).numpy(), (x_adv - x).flatten(1).numpy()
        expected = EPS[norm] * np.linalg.norm(slope, order, axis=1) - (delta * slope).sum(1)
        np.testing.assert_allclose(fosc(x, x_adv, gradient, norm, EPS[norm]).numpy(), expected, rtol=0, atol=1e-12)


def most_in_l2(room: Array, slope: Array) -> float:
    """The largest <d, slope> with |d|_2 <= eps and 0 <= d <= room."""
    circle = {"type": "ineq", "fun": lambda d: EPS["l2"] ** 2 - d @ d, "jac": lambda d: -2 * d}
    found = minimize(
        lambda d: -d @ slope,
        0.01 * room,
        jac=lambda d: -slope,
        method="SLSQP",
        bounds=[(0, r) for r in room],
        constraints=circle,
        options={"ftol": 1e-12},
    )
    return -float(found.fun)


def most_in_l1(room: Array, slope: Array) -> float:
    """The same with |d|_1 <= eps: a linear program."""
    found = linprog(-slope, A_ub=np.ones((1, len(slope))), b_ub=[EPS["l1"]], bounds=[(0, r) for r in room])
    return -float(found.fun)


@pytest.mark.parametrize(("norm", "most"), [("l2", most_in_l2), ("l1", most_in_l1)])
def test_over_ball_and_box_it_is_what_a_solver_finds(norm: Norm, most: Any) -> None:
    x, x_adv, gradient = points()
    found = fosc(x, x_adv, gradient, norm, EPS[norm], box=True).numpy()
    top = farthest(x, gradient, norm, EPS[norm], box=True)
    assert ((top >= 0) & (top <= 1)).all()
    for row, (middle, point, slope) in enumerate(
        zip(*(t.flatten(1).numpy() for t in (x, x_adv, gradient)), strict=True)
    ):
        room = np.where(slope > 0, 1 - middle, middle)
        assert found[row] == pytest.approx(most(room, abs(slope)) - (point - middle) @ slope, abs=1e-6)
        length = np.linalg.norm((top[row].flatten() - x[row].flatten()).numpy(), 2 if norm == "l2" else 1)
        assert length == pytest.approx(EPS[norm], abs=1e-9)


@pytest.mark.parametrize("norm", EPS)
def test_a_ball_larger_than_the_box_ends_in_its_corner(norm: Norm) -> None:
    x, _, gradient = points()
    corner = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, 0.0, x))
    torch.testing.assert_close(farthest(x, gradient, norm, 9.0 if norm != "linf" else 1.0, box=True), corner)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", EPS)
def test_it_is_never_negative_in_the_ball_and_zero_at_its_best_point(norm: Norm, box: bool, dtype: torch.dtype) -> None:
    x, x_adv, gradient = points(dtype=dtype)
    tolerance = 1e-6 if dtype is torch.float32 else 1e-14
    assert (fosc(x, x_adv, gradient, norm, EPS[norm], box=box) >= -tolerance).all()
    best = farthest(x, gradient, norm, EPS[norm], box=box)
    assert not fosc(x, best, gradient, norm, EPS[norm], box=box).any()
    assert not fosc(x, x_adv, 0 * gradient, norm, EPS[norm], box=box).any()  # a stationary point inside


def test_where_pgd_ends_on_a_linear_loss_it_is_zero_to_the_last_bit() -> None:
    x, gradient = images(), torch.linspace(-1, 1, 36).view(1, 1, 6, 6).expand(6, 1, 6, 6)
    model = Affine(torch.stack([torch.zeros(36), gradient[0].flatten()]))
    x_adv = search(
        PGD(eps=0.3, step_size=0.1), model, x, torch.zeros(6, dtype=torch.int64), rng=torch.Generator(), policy="last"
    ).x_adv
    assert not fosc(x, x_adv, gradient, "linf", 0.3, box=True).any()
    assert (fosc(x, x_adv, gradient, "linf", 0.3) > 0.1).all()  # some pixels end at 0 or 1 before the ball does


def test_on_a_linear_loss_it_falls_by_a_quarter_of_the_way_each_step() -> None:
    x = torch.full((3, 1, 6, 6), 0.5, dtype=torch.float64)
    weight = torch.randn(2, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = []

    def watch(visit: Visit) -> Tensor:
        scale = 0.2 * visit.gradient.flatten(1).abs().sum(1)
        seen.append((fosc(visit.x, visit.x_adv, visit.gradient, "linf", 0.2) / scale).tolist())
        return torch.zeros(3, dtype=torch.bool)

    attack = PGD(eps=0.2, step_size=0.05, steps=5, random_start=False)
    search(attack, Affine(weight), x, torch.tensor([0, 1, 0]), rng=torch.Generator(), stop=watch, policy="last")
    np.testing.assert_allclose(seen, [[share] * 3 for share in (1, 0.75, 0.5, 0.25, 0)], atol=1e-12)


def test_on_a_concave_quadratic_it_falls_as_computed_by_hand() -> None:
    """f = -(v - 0.9)^2 / 2 around 0.5 within 0.2: the condition at v is (0.7 - v) (0.9 - v)."""
    x = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    expected = [0.08, 0.0525, 0.03, 0.0125, 0.0]
    for k, value in enumerate(expected):
        x_adv = x + 0.05 * k
        assert fosc(x, x_adv, 0.9 - x_adv, "linf", 0.2).item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("norm", EPS)
def test_it_does_not_change_with_the_units_of_pixels_nor_when_images_are_inverted(norm: Norm) -> None:
    x, x_adv, gradient = points()
    eps = EPS[norm]
    bytes_ = fosc(255 * x, 255 * x_adv, gradient / 255, norm, 255 * eps)
    torch.testing.assert_close(bytes_, fosc(x, x_adv, gradient, norm, eps), rtol=0, atol=1e-12)
    for box in (False, True):
        inverted = fosc(1 - x, 1 - x_adv, -gradient, norm, eps, box=box)
        torch.testing.assert_close(inverted, fosc(x, x_adv, gradient, norm, eps, box=box), rtol=0, atol=1e-12)


@pytest.mark.parametrize("box", [False, True])
def test_weak_examples_are_those_of_fgsm(box: bool) -> None:
    model, x = small(dtype=torch.float64), images(dtype=torch.float64)
    y = classes_of(model, x)
    weak = search(FGSM(eps=0.1), model, x, y, rng=torch.Generator(), policy="last").x_adv.requires_grad_()
    log_p = torch.log_softmax(model(weak), 1)
    (slope,) = torch.autograd.grad(-log_p.gather(1, y[:, None]).sum(), weak)
    low, high = ((x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)) if box else (x - 0.1, x + 0.1)
    gaps = torch.maximum(slope * (high - weak), slope * (low - weak)).detach()
    model.train()
    torch.testing.assert_close(weak_conditions(model, x, y, "linf", 0.1, box=box), gaps.flatten(1).sum(1))
    assert model.training


def test_a_ball_that_is_not_convex_is_refused() -> None:
    with pytest.raises(ValueError, match="convex ball: linf, l2 or l1, not l0"):
        fosc(*points(), "l0", 3.0)
