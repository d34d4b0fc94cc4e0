"""The proximal operators against a convex solver, a search over a grid, and cases worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import cvxpy
import numpy
import pytest
import torch
from torch import Tensor

from algorithms import balls, prox

CONVEX = {"linf": (prox.linf, "inf"), "l2": (prox.l2, 2), "l1": (prox.l1, 1)}
SPARSE: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "l0": (prox.l0, lambda u: (u != 0).double()),
    "two_thirds": (prox.two_thirds, lambda u: u.abs() ** (2 / 3)),
}


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def drawn(kind: str, rows: int = 6) -> tuple[Tensor, Tensor, Tensor | None, prox.Box | None]:
    """Points, strengths, and weights and box where `kind` has them; with ties, zeros and rows of equal entries."""
    rng = torch.Generator().manual_seed(7)
    x = torch.randn(rows, 1, 2, 4, generator=rng, dtype=torch.float64)
    x[1, 0, 0] = 0
    x[2] = 0.7
    x[3] = 0
    x[4, 0, :, ::2] = -x[4, 0, :, 1::2]
    strength = torch.tensor([0.3, 1.0, 0.9, 0.5, 0.4, 30.0], dtype=torch.float64)
    weight = torch.rand(x.shape, generator=rng, dtype=torch.float64) + 0.05 if "weighted" in kind else None
    low = -torch.rand(x.shape, generator=rng, dtype=torch.float64)
    high = torch.rand(x.shape, generator=rng, dtype=torch.float64)
    low[0, 0, 0, :2] = 0  # entries on an edge of the box
    high[0, 0, 1, :2] = 0
    return x, strength, weight, (low, high) if "boxed" in kind else None


def objective(h: float, x: Tensor, u: Tensor, strength: float, weight: Tensor | None) -> float:
    square = (u - x) ** 2 if weight is None else weight * (u - x) ** 2
    return strength * h + float(square.sum()) / 2


def solved(x: Tensor, strength: float, order: str | int, weight: Tensor | None, box: prox.Box | None) -> float:
    """The least objective, by a convex solver."""
    u = cvxpy.Variable(x.numel())
    scale = numpy.ones(x.numel()) if weight is None else weight.flatten().numpy() ** 0.5
    cost = strength * cvxpy.norm(u, order) + cvxpy.sum_squares(cvxpy.multiply(scale, u - x.flatten().numpy())) / 2
    inside = [] if box is None else [u >= box[0].flatten().numpy(), u <= box[1].flatten().numpy()]
    value = cvxpy.Problem(cvxpy.Minimize(cost), inside).solve(solver=cvxpy.CLARABEL)
    return float(value)


@pytest.mark.parametrize("kind", ["plain", "weighted", "boxed", "weighted boxed"])
@pytest.mark.parametrize("norm", list(CONVEX))
def test_convex_operators_reach_the_solvers_optimum(norm: str, kind: str) -> None:
    operator, order = CONVEX[norm]
    x, strength, weight, box = drawn(kind)
    u = operator(x, strength, weight=weight, box=box)
    for i in range(len(x)):
        mass, bounds = (None if weight is None else weight[i]), (None if box is None else (box[0][i], box[1][i]))
        if bounds is not None:
            assert (u[i] >= bounds[0]).all()
            assert (u[i] <= bounds[1]).all()
        h = float(torch.linalg.vector_norm(u[i].flatten(), balls.ORDER[norm]))
        ours = objective(h, x[i], u[i], float(strength[i]), mass)
        assert ours <= solved(x[i], float(strength[i]), order, mass, bounds) + 1e-6


@pytest.mark.parametrize("kind", ["plain", "weighted", "boxed", "weighted boxed"])
@pytest.mark.parametrize("name", list(SPARSE))
def test_sparse_operators_beat_every_point_of_a_grid(name: str, kind: str) -> None:
    operator, h = SPARSE[name]
    x, strength, weight, box = drawn(kind)
    x, strength = 2 * x, strength / 2
    u = operator(x, strength, weight=weight, box=box)
    low, high = (-4 * torch.ones_like(x), 4 * torch.ones_like(x)) if box is None else box
    share = torch.linspace(0, 1, 4001, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    grid = torch.cat([low + share * (high - low), torch.zeros(1, *x.shape, dtype=torch.float64)])
    mass = torch.ones_like(x) if weight is None else weight
    level = strength.view(-1, 1, 1, 1)
    costs = level * h(grid) + mass * (grid - x) ** 2 / 2
    ours = level * h(u) + mass * (u - x) ** 2 / 2
    assert (u >= low).all()
    assert (u <= high).all()
    assert (ours <= costs.amin(0) + 1e-9).all()


@pytest.mark.parametrize("kind", ["plain", "weighted boxed"])
def test_pixels_stay_or_go_whichever_costs_less(kind: str) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(40, 3, 2, 2, generator=rng, dtype=torch.float64)
    strength = torch.rand(40, generator=rng, dtype=torch.float64)
    weight = torch.rand(x.shape, generator=rng, dtype=torch.float64) if "weighted" in kind else torch.ones_like(x)
    box = (-torch.rand(x.shape, generator=rng).double(), torch.rand(x.shape, generator=rng).double())
    u = prox.pixels(x, strength, weight=weight, box=box if "boxed" in kind else None)
    kept = x.clamp(*box) if "boxed" in kind else x
    stays = strength.view(-1, 1, 1) + (weight * (kept - x) ** 2).sum(1) / 2 < (weight * x**2).sum(1) / 2
    assert 0.2 < stays.double().mean() < 0.9
    assert torch.equal(u, torch.where(stays.unsqueeze(1), kept, 0))


def test_pixel_rules_differ_where_no_channel_alone_is_large() -> None:
    x = torch.tensor([-0.514, 0.66, -0.643], dtype=torch.float64).view(1, 3, 1, 1)  # ||x|| = 1.055 > sqrt(0.6) = 0.775
    assert torch.equal(prox.pixels(x, 0.3), x)
    assert torch.equal(prox.pixels(x, 0.3, rule="max"), torch.zeros_like(x))


def test_linf_is_zero_inside_the_dual_ball() -> None:
    both = torch.cat([row(0.3, -0.2, 0.1), row(3.0, -2.0, 1.0)])
    u = prox.linf(both, torch.tensor([10.0, 1.5]))
    assert torch.equal(u[:1], row(0, 0, 0))
    assert torch.allclose(u[1:], row(1.75, -1.75, 1.0))  # by hand: (3 - t) + (2 - t) = 1.5


def test_two_thirds_is_zero_where_the_formula_has_roots_but_zero_is_lower() -> None:
    for strength in (0.01, 1.0, 50.0):
        assert prox.two_thirds(row(1.40 * strength**0.75), strength).item() == 0
        assert prox.two_thirds(row(-1.48 * strength**0.75), strength).item() < 0


def test_two_thirds_keeps_its_digits_in_single_precision() -> None:
    x = torch.logspace(-3, 1, 200).view(1, 1, 1, -1)
    for strength in (1e-12, 1e-6, 1e-3, 1.0):
        single, double = prox.two_thirds(x, strength), prox.two_thirds(x.double(), strength)
        assert torch.allclose(single.double(), double, rtol=1e-4)


@pytest.mark.parametrize(
    ("norm", "conjugate"), [("linf", "l1"), ("l2", "l2"), ("l1", "linf")]
)  # the ball of the dual norm
def test_moreau(norm: str, conjugate: balls.Norm) -> None:
    x, strength, _, _ = drawn("plain")
    rest = balls.project(x / strength.view(-1, 1, 1, 1), conjugate, 1.0) * strength.view(-1, 1, 1, 1)
    assert torch.allclose(CONVEX[norm][0](x, strength) + rest, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("operator", [prox.linf, prox.l2, prox.l1, prox.l0, prox.pixels, prox.two_thirds])
def test_no_strength_changes_nothing_and_type_is_kept(operator: Callable[..., Tensor]) -> None:
    x = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(operator(x, 0.0), x, atol=1e-6)
    assert torch.equal(operator(x, 1e9), torch.zeros_like(x))
    assert operator(x.double(), torch.ones(3)).dtype is torch.float64
