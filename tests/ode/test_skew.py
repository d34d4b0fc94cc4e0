"""The skew-symmetric block: its kernel and transpose, its modes, its sizes, the classifier."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from algorithms.models.sonet import SONet
from algorithms.ode import skew
from algorithms.ode.flow import Flow
from algorithms.ode.skew import Convolution, Dense, Skew, SkewField
from algorithms.ode.solver import Solver, solvers
from tests.ode.systems import REFERENCE, SMOOTH, block, random
from tests.sketching import CIFAR, sketched


@pytest.mark.parametrize(
    ("stride", "side", "half"), [(1, 5, 5), (1, 8, 8), (2, 8, 4), (2, 6, 3), (2, 7, 3), (2, 2, 1), (2, 3, 1)]
)
def test_the_transpose_is_the_adjoint(stride: int, side: int, half: int) -> None:
    kernel = Convolution(3, 4, stride).double()
    x, z = random(2, 3, side, side + 1 - side % 2), random(2, 4, half, (side + 1 - side % 2) // stride, seed=1)
    across, back = kernel(x), kernel.transposed(z, x)
    assert across.shape == z.shape
    assert back.shape == x.shape
    assert abs((across * z).sum() - (x * back).sum()) < 1e-10


def test_the_transpose_of_a_matrix_is_its_adjoint() -> None:
    kernel = Dense(7, 3).double()
    x, z = random(2, 7), random(2, 3, seed=1)
    assert abs((kernel(x) * z).sum() - (x * kernel.transposed(z, x)).sum()) < 1e-10


@pytest.mark.parametrize("gamma", [0.0, 0.1])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_linear_part_is_skew_but_for_the_damping(stride: int, gamma: float) -> None:
    field = block(Skew(damping=gamma), widths=(2, 3), stride=stride).flow.field
    side = 4 // stride
    sizes = 3 * side * side, 2 * 4 * 4

    def linear(flat: Tensor) -> Tensor:
        z, x = flat.split(sizes)
        return torch.cat([part.flatten() for part in field.linear((z.view(1, 3, side, side), x.view(1, 2, 4, 4)))])

    matrix = torch.stack([linear(column) for column in torch.eye(sum(sizes), dtype=torch.float64)], dim=1)
    torch.testing.assert_close(matrix + matrix.T, -2 * gamma * torch.eye(sum(sizes), dtype=torch.float64))
    assert (torch.linalg.eigvals(matrix).real + gamma).abs().max() < 1e-5


def test_one_euler_step_by_hand() -> None:
    """z(1) = leaky(W x) from z = 0 by one step: what a convolution and LeakyReLU give."""
    made, x = block(Skew(), Solver(method="euler")), random(2, 3, 4, 4)
    expected = torch.nn.functional.leaky_relu(torch.conv2d(x, made.flow.field.kernel.weight, padding=1), 0.01)
    torch.testing.assert_close(made(x), expected)


def test_modes_and_what_the_theorem_covers() -> None:
    assert (Skew().gamma, Skew().tiled, Skew().covered) == (0.1, False, True)
    assert (REFERENCE.gamma, REFERENCE.tiled, REFERENCE.covered) == (0.0, True, False)
    assert not Skew(damping=0.0).covered
    assert not Skew(mode="reference", damping=0.1).covered
    assert Skew(start="tiled").tiled
    with pytest.raises(ValueError, match="damping"):
        Skew(damping=-0.1)


def test_the_gain_is_a_factor_on_fresh_derivatives() -> None:
    state = random(2, 5, 6, 6), random(2, 3, 6, 6, seed=1)
    one, four = (block(Skew(mode="reference", gain=gain)).flow.field(torch.zeros(()), state) for gain in (1.0, 4.0))
    for small, large in zip(one, four, strict=True):
        torch.testing.assert_close(large, 4 * small)
    with pytest.raises(ValueError, match="gain: of the norms of reference mode"):
        Skew(gain=2.0)


def test_the_reference_starts_from_tiles_of_every_second_pixel() -> None:
    x = random(2, 3, 5, 6)
    start = block(REFERENCE, widths=(3, 8), stride=2).start(x)
    assert start.shape == (2, 8, 2, 3)
    for channel in range(8):
        torch.testing.assert_close(start[:, channel], x[:, channel % 3, :4:2, ::2])


def test_number_of_parameters_of_a_block() -> None:
    assert sum(p.numel() for p in block(SMOOTH, widths=(3, 32)).parameters()) == 864
    assert sum(p.numel() for p in block(REFERENCE, widths=(3, 32)).parameters()) == 864 + 140


def test_the_reference_classifier_by_hand() -> None:
    """One Euler step from z = 0.1: 0.1 - W leaky(x) + b, damping 0."""
    with torch.random.fork_rng():
        head = skew.classifier(6, 4, REFERENCE, solvers(Solver(method="euler"), None), "head").double()
    torch.nn.init.constant_(head.flow.field.bias_z, 0.5)
    x = random(3, 6)
    active = torch.where(x > 0, x, 0.01 * x)
    torch.testing.assert_close(head(x), 0.6 - active @ head.flow.field.kernel.weight.T)


@pytest.mark.parametrize("mode", ["theorem", "reference"])
def test_sonet_has_six_blocks_of_the_papers_widths(mode: skew.Mode) -> None:
    network = sketched(SONet(block=Skew(mode=mode)), CIFAR)
    shapes = [tuple(p.shape) for name, p in network.named_parameters() if name.endswith("kernel.weight")]
    assert shapes == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (10, 256)]
    assert [type(m.field) is SkewField for m in network.modules() if isinstance(m, Flow)][-1] == (mode == "theorem")
