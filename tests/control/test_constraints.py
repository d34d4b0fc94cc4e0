"""Constraints: each gives the nearest point of its set, to the last digit that its bound needs, whatever the size."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algorithms import plugins
from algorithms.control import clipping
from algorithms.control.constraints import Constraint
from algorithms.control.constraints.antisymmetric import Antisymmetric
from algorithms.control.constraints.box import Box
from algorithms.control.constraints.convolution import Convolution
from algorithms.control.constraints.dissipative import Dissipative
from algorithms.control.constraints.frobenius import Frobenius
from algorithms.control.constraints.log_det_barrier import LogDetBarrier
from algorithms.control.constraints.row_sum import RowSum
from algorithms.control.constraints.semidefinite import Semidefinite
from algorithms.control.constraints.spectral_norm import SpectralNorm


def normal(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def largest(theta: Tensor) -> float:
    """The spectral norm by a full decomposition in double precision."""
    return float(torch.linalg.svdvals(theta.double().flatten(1))[0])


# The contract: every plug-in of the folder, built from its defaults, on square weights that are outside its set.


@pytest.fixture(params=plugins.names(Constraint))
def constraint(request: pytest.FixtureRequest) -> Constraint:
    return plugins.find(Constraint, request.param)()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_projections_are_in_the_set_and_stay_there(constraint: Constraint, dtype: torch.dtype) -> None:
    theta = normal(6, 6, scale=2.0, dtype=dtype)
    before = theta.clone()
    projected = constraint.project(theta)
    assert torch.equal(theta, before)
    assert projected.dtype == dtype
    assert projected.shape == theta.shape
    assert constraint.measure(projected) <= constraint.limit + 1e-6
    if not isinstance(constraint, LogDetBarrier):
        torch.testing.assert_close(constraint.project(projected), projected, rtol=0, atol=1e-6)
        assert constraint.measure(theta) >= constraint.measure(projected)


def test_they_pickle_and_a_curvature_changes_no_set(constraint: Constraint) -> None:
    assert pickle.loads(pickle.dumps(constraint)) == constraint
    assert constraint.under(50.0).limit == constraint.limit


FEASIBLE = [
    (SpectralNorm(bound=0.8), (5, 7)),
    (Antisymmetric(gamma=0.1), (5, 5)),
    (Dissipative(gamma=0.1), (5, 5)),
    (Frobenius(bound=0.8), (5, 7)),
    (Box(bound=0.5), (5, 7)),
    (RowSum(bound=0.8), (5, 7)),
    (Semidefinite(bound=0.8, solver="scs"), (3, 4)),
]


def feasible(constraint: Constraint, shape: tuple[int, ...], seed: int) -> Tensor:
    """A random point of a set, made without its projection."""
    y = normal(*shape, seed=seed)
    match constraint:
        case SpectralNorm(bound=bound) | Semidefinite(bound=bound):
            return y * bound * (seed % 7 / 6) / largest(y)
        case Frobenius(bound=bound):
            return y * bound * (seed % 7 / 6) / float(y.norm())
        case Box(bound=bound):
            return y.tanh() * bound
        case RowSum(bound=bound):
            return y * bound * (seed % 7 / 6) / y.abs().sum(1, keepdim=True)
        case Antisymmetric(gamma=gamma):
            return y - y.T - gamma * torch.eye(len(y), dtype=y.dtype)
        case Dissipative(gamma=gamma):
            return -y @ y.T - gamma * torch.eye(len(y), dtype=y.dtype) + (y - y.T)
    raise AssertionError(constraint)


@pytest.mark.parametrize(("constraint", "shape"), FEASIBLE, ids=lambda value: type(value).__name__)
def test_nothing_in_the_set_is_nearer(constraint: Constraint, shape: tuple[int, ...]) -> None:
    """The variational inequality <theta_hat - theta*, Y - theta*> <= 0, at 1000 points Y of the set."""
    theta = normal(*shape, seed=77, scale=2.0)
    nearest = constraint.project(theta)
    slack = 1e-5 if isinstance(constraint, Semidefinite) else 1e-9  # a solver's own precision
    assert (
        max(float(((theta - nearest) * (feasible(constraint, shape, k) - nearest)).sum()) for k in range(1000)) <= slack
    )


# Spectral norm


def test_a_nilpotent_matrix_comes_back_halved() -> None:
    """Its eigenvalues are 0, so a constraint on eigenvalues would leave it."""
    projected = SpectralNorm().project(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    torch.testing.assert_close(projected, torch.tensor([[0.0, 1.0], [0.0, 0.0]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 7), (7, 3), (32, 32), (4, 3, 3, 3), (40, 2, 3, 3)], ids=str)
def test_clipping_is_the_decomposition_with_smaller_values(shape: tuple[int, ...]) -> None:
    theta = normal(*shape)
    u, s, v = torch.linalg.svd(theta.flatten(1), full_matrices=False)
    expected = (u * s.clamp(max=1.0) @ v).reshape(shape)
    torch.testing.assert_close(SpectralNorm().project(theta), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
@pytest.mark.parametrize("shape", [(512, 512), (512, 4608)], ids=str)
def test_the_bound_holds_in_single_precision_for_large_layers(shape: tuple[int, int], scale: float) -> None:
    """Also where the norm was 1e10 times the bound, and squaring loses every digit of the smaller values."""
    rows = 64 if scale > 1 else shape[0]  # the smaller ones for the odd cases, as decompositions take their time
    theta = normal(rows, shape[1] // (shape[0] // rows), scale=scale, dtype=torch.float32)
    theta[0] *= 50
    projected = SpectralNorm(bound=1.5).project(theta)
    norm = float(torch.linalg.eigvalsh(projected.double() @ projected.double().T)[-1].sqrt())
    assert 1.5 - 1e-4 <= norm <= 1.5 + 1e-7


@pytest.mark.parametrize("shape", [(130, 130), (190, 130), (130, 190), (130, 400)], ids=str)
@pytest.mark.parametrize("norm", [0.9, 1.05, 20.0, 5e3])
def test_every_way_of_clipping_in_single_precision_gives_the_decomposition(shape: tuple[int, int], norm: float) -> None:
    """None, few, most, and far too large values; nearly square and wide: each has its own way."""
    theta = normal(*shape)
    theta = (theta * (norm / largest(theta))).float()
    u, s, v = torch.linalg.svd(theta.double(), full_matrices=False)
    expected = u * s.clamp(max=1.0) @ v
    projected = SpectralNorm().project(theta)
    assert (projected.double() - expected).norm() <= 1e-5 * expected.norm()
    assert largest(projected) <= 1
    assert torch.equal(SpectralNorm().project(projected), projected)


def test_a_weight_in_the_set_keeps_its_bits() -> None:
    theta = normal(5, 7, dtype=torch.float32)
    assert torch.equal(SpectralNorm(bound=largest(theta) + 1e-4).project(theta), theta)


@pytest.mark.parametrize("share", [0.9999, 1.0001])
def test_a_matrix_near_the_bound_is_cut_only_if_it_is_outside(share: float) -> None:
    """The factorisation that tells so without eigenvalues is exact enough on both sides."""
    batch = torch.stack([normal(6, 9), normal(6, 9, seed=1)])
    batch *= 0.5 / max(largest(one) for one in batch)
    batch[1] *= share / largest(batch[1])
    clipped = clipping.clip(batch, 1.0)
    assert torch.equal(clipped, batch) == (share < 1)
    assert torch.equal(clipped[0], batch[0])
    assert largest(clipped[1]) <= 1


def test_clipping_takes_batches_and_complex_matrices() -> None:
    batch = torch.complex(normal(3, 4, 5), normal(3, 4, 5, seed=1))
    clipped = clipping.clip(batch, 1.0)
    for one, whole in zip(clipped, batch, strict=True):
        u, s, v = torch.linalg.svd(whole, full_matrices=False)
        torch.testing.assert_close(one, (u * s.clamp(max=1.0)) @ v, rtol=0, atol=1e-12)


# Row sums


def test_a_row_is_shrunk_until_it_fits_and_others_stay() -> None:
    theta = torch.tensor([[3.0, -1.0, 0.5], [0.2, -0.3, 0.1]], dtype=torch.float64)
    expected = torch.tensor([[2.0, 0.0, 0.0], [0.2, -0.3, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(RowSum(bound=2.0).project(theta), expected)


def test_the_sum_of_a_kernel_is_how_far_its_convolution_moves_a_pixel() -> None:
    kernel = RowSum(bound=0.7).project(normal(3, 2, 3, 3, scale=2.0))
    worst = kernel.sign()  # images of one kernel's size, each pixel moved by 1 towards where it tells most
    moved = torch.nn.functional.conv2d(worst, kernel).abs().amax((1, 2, 3))
    assert float(moved.max()) == pytest.approx(RowSum().measure(kernel), rel=1e-12)
    assert float(moved.max()) == pytest.approx(0.7, abs=1e-12)


# Antisymmetric and dissipative weights


def test_eigenvalues_of_the_antisymmetric_form_are_on_a_line() -> None:
    projected = Antisymmetric(gamma=0.3).project(normal(7, 7))
    assert torch.linalg.eigvals(projected).real.sub(-0.3).abs().max() < 1e-12


def test_dissipative_weights_are_nearer_than_antisymmetric_ones() -> None:
    for n in (4, 8, 16):
        theta = normal(n, n, seed=n)
        far, near = (c.project(theta) for c in (Antisymmetric(gamma=0.1), Dissipative(gamma=0.1)))
        assert (near - theta).norm() < (far - theta).norm()
        assert torch.linalg.eigvals(near).real.max() <= -0.1 + 1e-9


def test_dissipative_weights_keep_their_bound_in_single_precision() -> None:
    projected = Dissipative(gamma=0.1).project(normal(64, 64, dtype=torch.float32))
    assert Dissipative().measure(projected) <= -0.1


def test_an_antisymmetric_kernel_is_the_operator_minus_its_transpose() -> None:
    kernel = Antisymmetric(gamma=0.2).project(normal(2, 2, 3, 3))
    units = torch.eye(32, dtype=torch.float64).view(32, 2, 4, 4)
    dense = torch.nn.functional.conv2d(units, kernel, padding=1).flatten(1)
    torch.testing.assert_close(dense + dense.T, -0.4 * torch.eye(32, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Antisymmetric, Dissipative])
def test_they_need_square_weights(kind: type[Constraint]) -> None:
    with pytest.raises(ValueError, match=r"a square matrix.*\(5, 7\)"):
        kind().project(normal(5, 7))


# The barrier


@pytest.mark.parametrize("weight", [1e-3, 0.1, 5.0])
def test_the_barriers_point_is_stationary(weight: float) -> None:
    """-(alpha + beta) |X - theta_hat|^2 + mu log det(I - X X^T / c^2) has no slope there, by autograd."""
    alpha, beta, c = 0.5, 1.5, 0.9
    theta = normal(4, 6, scale=0.7)
    barrier = LogDetBarrier(bound=c, weight=weight).under(alpha + beta)
    x = barrier.project(theta).requires_grad_()
    value = -(alpha + beta) * (x - theta).square().sum() + weight * torch.logdet(torch.eye(4) - x @ x.T / c**2)
    (slope,) = torch.autograd.grad(value, x)
    assert slope.abs().max() < 1e-8
    assert largest(x.detach()) < c


def test_the_barrier_tends_to_clipping() -> None:
    theta = normal(5, 5)
    clipped = SpectralNorm().project(theta)
    gaps = [float((LogDetBarrier(weight=mu).project(theta) - clipped).norm()) for mu in (1e-1, 1e-3, 1e-5, 1e-9, 0.0)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-2] < 1e-6
    assert gaps[-1] < 1e-12


def test_the_barrier_at_zero_and_far_away() -> None:
    assert LogDetBarrier().project(torch.zeros(3, 4)).eq(0).all()
    assert largest(LogDetBarrier(weight=1e-9).project(normal(6, 6, scale=1e6, dtype=torch.float32))) <= 1
    assert LogDetBarrier(weight=0.5).under(math.inf) == replace(LogDetBarrier(), weight=0.0)


# What users get wrong


@pytest.mark.parametrize("kind", [SpectralNorm, Convolution, LogDetBarrier, Frobenius, Box, RowSum, Semidefinite])
def test_a_bound_of_zero_is_refused(kind: type[SpectralNorm]) -> None:
    with pytest.raises(ValueError, match=r"bound: .*, at least 1e-06, not 0"):
        kind(bound=0.0)


def test_a_vector_is_no_matrix() -> None:
    with pytest.raises(ValueError, match=r"two axes or more, not of shape \(5,\)"):
        SpectralNorm().project(normal(5))
