"""Convolutions as operators, against the dense matrix of the convolution."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from algorithms.control import operators
from algorithms.control.constraints.convolution import Convolution
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.operators import Geometry


def kernel(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def dense(weight: Tensor, geometry: Geometry) -> Tensor:
    """The convolution's matrix, from its outputs for images of one pixel."""
    rows, columns = geometry.size
    channels = weight.shape[1]
    units = torch.eye(channels * rows * columns, dtype=weight.dtype).view(-1, channels, rows, columns)
    high, wide = ((k - 1) * d for k, d in zip(weight.shape[2:], geometry.dilation, strict=True))
    edges = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    padded = functional.pad(units, edges, mode="circular" if geometry.padding == "circular" else "constant")
    return functional.conv2d(padded, weight, stride=geometry.stride, dilation=geometry.dilation).flatten(1).T


def top(matrix: Tensor) -> float:
    return float(torch.linalg.svdvals(matrix)[0])


CIRCULAR = [
    ((4, 3, 3, 3), Geometry((6, 6), padding="circular")),
    ((2, 3, 3, 3), Geometry((5, 7), padding="circular")),
    ((3, 2, 3, 3), Geometry((6, 8), (2, 2), "circular")),
    ((3, 2, 4, 3), Geometry((9, 6), (3, 2), "circular")),
    ((2, 2, 3, 3), Geometry((6, 6), (1, 1), "circular", (2, 2))),
    ((3, 5, 1, 1), Geometry((4, 4), padding="circular")),
]


@pytest.mark.parametrize(("shape", "geometry"), CIRCULAR, ids=str)
def test_the_norm_is_exact_for_circular_padding(shape: tuple[int, ...], geometry: Geometry) -> None:
    weight = kernel(*shape)
    assert operators.norm(weight, geometry) == pytest.approx(top(dense(weight, geometry)), rel=1e-10)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 6), (5, 7)], ids=str)
def test_the_torus_bounds_zero_padding_and_a_larger_one_too(size: tuple[int, int], stride: int) -> None:
    weight = kernel(4, 3, 3, 3)
    truth = top(dense(weight, Geometry(size, (stride, stride))))
    assert truth - 1e-12 <= operators.norm(weight, Geometry(size, (stride, stride))) <= 1.3 * truth
    assert truth - 1e-12 <= operators.norm(weight, Geometry((32, 32), (stride, stride)))


def test_a_stride_that_does_not_divide_the_image_is_bounded() -> None:
    weight, geometry = kernel(3, 2, 3, 3), Geometry((7, 7), (2, 2), "circular")
    assert top(dense(weight, geometry)) <= operators.norm(weight, geometry)


def test_the_kernels_matrix_is_off_by_up_to_its_size() -> None:
    """An even 3x3 kernel is the worst case: the operator is three times its matrix; for one position they are equal."""
    even, delta = torch.full((1, 1, 3, 3), 1 / 3), torch.zeros(1, 1, 3, 3)
    delta[0, 0, 1, 1] = 1
    geometry = Geometry((8, 8), padding="circular")
    assert SpectralNorm().measure(even) == pytest.approx(1, abs=1e-6)
    assert operators.norm(even, geometry) == pytest.approx(3, abs=1e-6)
    assert operators.norm(delta, geometry) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "geometry", [CIRCULAR[0][1], CIRCULAR[2][1], Geometry((6, 6)), Geometry((6, 6), (2, 2))], ids=str
)
def test_a_projected_kernel_keeps_the_bound_and_is_nearer_than_a_scaled_one(
    geometry: Geometry, dtype: torch.dtype
) -> None:
    weight = kernel(4, 3, 3, 3, dtype=dtype)
    projected = operators.project(weight, geometry, 1.5, 20)
    assert projected.dtype == dtype
    assert top(dense(projected.double(), geometry)) <= 1.5 + 1e-6
    assert operators.norm(projected, geometry) == pytest.approx(1.5, rel=1e-5)
    scaled = weight * (1.5 / operators.norm(weight, geometry))
    assert (projected - weight).norm() < (scaled - weight).norm()


def test_many_rounds_reach_the_nearest_kernel() -> None:
    """With one channel a frequency's matrix is a number, so the nearest kernel solves a cone program: cvxpy's."""
    weight = kernel(1, 1, 3, 3)
    u, v = np.divmod(np.arange(25), 5)
    x, y = np.divmod(np.arange(9), 3)
    angles = 2 * np.pi * (np.outer(u, x) + np.outer(v, y)) / 5
    nearest = cvxpy.Variable(9)
    sizes = cvxpy.norm(cvxpy.vstack([np.cos(angles) @ nearest, np.sin(angles) @ nearest]), axis=0)
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(nearest - weight.flatten().numpy())), [sizes <= 1]).solve("CLARABEL")
    found = operators.project(weight, Geometry((5, 5), padding="circular"), 1.0, 400)
    np.testing.assert_allclose(found.flatten().numpy(), nearest.value, atol=1e-4)


def test_kernels_and_matrices_under_the_constraint() -> None:
    constraint = Convolution(bound=0.5, size=(6, 6), stride=2)
    assert constraint.measure(constraint.project(kernel(4, 3, 3, 3))) <= 0.5 + 1e-12
    assert top(constraint.project(kernel(4, 9))) == pytest.approx(0.5)
    assert constraint.project(kernel(4, 3, 3)).shape == (4, 3, 3)
    inside = kernel(4, 3, 3, 3) / 100
    assert constraint.project(inside) is inside
    with pytest.raises(ValueError, match="images of 5x5 or more for this kernel, not 4x4"):
        Convolution(size=(4, 4), padding="circular").project(kernel(2, 2, 5, 5))
    with pytest.raises(ValueError, match="size: rows and columns"):
        Convolution(size=(0, 4))
