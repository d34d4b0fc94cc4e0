"""Stability: eigenvalues and Lyapunov balance against the theorem, growth against a linear system."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from algorithms.diagnostics import stability
from algorithms.models.sonet import SONet
from algorithms.ode.activations import Activation
from algorithms.ode.skew import Skew
from algorithms.ode.watch import State
from tests.ode.systems import REFERENCE, block, random
from tests.sketching import DIGITS, built

LEAK = 0.01


def state(rows: int = 1, width: int = 3) -> State:
    return random(rows, width, 4, 4, seed=3), random(rows, 2, 4, 4, seed=4)


def numbers(value: Tensor) -> list[float]:
    return value.detach().flatten().tolist()


@pytest.mark.parametrize(("activation", "bound"), [("tanh", 1e-10), ("leaky_relu", 1e-5)])  # one is smooth
def test_without_damping_the_lyapunov_function_is_conserved(activation: Activation, bound: float) -> None:
    field = block(Skew(damping=0.0, activation=activation), widths=(2, 3)).flow.field
    balance = stability.balance(field, state(), end=2.0, steps=500)
    assert (balance.end - balance.start).abs().max() < bound * balance.start.max()
    assert not balance.dissipated.any()


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_with_damping_it_falls_by_what_is_dissipated(activation: Activation) -> None:
    field = block(Skew(activation=activation), widths=(2, 3)).flow.field
    balance = stability.balance(field, state(rows=2), steps=1000)
    assert (balance.gap < 1e-6).all()
    assert (balance.end < 0.99 * balance.start).all()


@pytest.mark.parametrize(
    ("activation", "energy"),
    [
        ("tanh", lambda u: math.log(math.cosh(u))),
        ("leaky_relu", lambda u: u * u / 2 * (1 if u > 0 else LEAK)),
    ],
)
def test_the_lyapunov_function_by_hand(activation: Activation, energy: object) -> None:
    assert callable(energy)
    field, at = block(Skew(activation=activation), widths=(2, 3)).flow.field, state()
    u = [value for part in field.linear(at) for value in numbers(part)]
    assert stability.lyapunov(field, at).item() == pytest.approx(math.fsum(energy(value) for value in u))
    leaf = tuple(part.requires_grad_() for part in state())
    value = stability.lyapunov(field, leaf).sum()
    rate = sum((g * f).sum() for g, f in zip(torch.autograd.grad(value, leaf), field(value, leaf), strict=True))
    assert rate.item() == pytest.approx(stability.dissipation(field, at).item(), rel=1e-9)


def test_the_function_does_not_overflow() -> None:
    field = block(Skew(activation="tanh"), widths=(2, 3)).flow.field
    far = tuple(1e4 * part for part in state())
    total = sum(abs(value) - math.log(2) for part in field.linear(far) for value in numbers(part))
    assert stability.lyapunov(field, far).item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_eigenvalues_along_a_trajectory_are_where_the_theorem_has_them(gamma: float) -> None:
    """Their largest real part is -gamma times the smallest slope, if z is so much larger than x that it is reached."""
    field = block(Skew(damping=gamma), widths=(1, 6)).flow.field
    start = random(1, 6, 4, 4, seed=3), random(1, 1, 4, 4, seed=4)
    path = stability.trajectory(field, start, end=2.0, steps=3)
    assert path.times == pytest.approx([0, 2 / 3, 4 / 3, 2])
    for place, largest in enumerate(stability.abscissas(field, path)):
        slopes = torch.cat([torch.where(part > 0, 1.0, LEAK).flatten() for part in field.linear(path.states[place])])
        assert sorted(set(numbers(slopes))) == pytest.approx([LEAK, 1.0])
        assert largest == pytest.approx(-gamma * LEAK, abs=1e-9)


def test_the_published_mode_has_no_such_theorem() -> None:
    field = block(REFERENCE, widths=(3, 4)).flow.field
    at = (random(1, 4, 4, 4, seed=3), random(1, 3, 4, 4, seed=4))
    assert max(stability.abscissas(field, stability.trajectory(field, at, steps=3))) > 1e-4
    with pytest.raises(ValueError, match="theorem mode"):
        stability.lyapunov(field, at)


class Linear(nn.Module):
    """y' = A y with a state of two parts."""

    matrix = torch.tensor([[-0.5, 2.0], [-2.0, -0.5]], dtype=torch.float64)

    def forward(self, t: Tensor, parts: State) -> State:
        rates = torch.cat(parts, dim=1) @ self.matrix.T
        return rates[:, :1], rates[:, 1:]


def test_the_jacobian_of_a_linear_system_is_its_matrix() -> None:
    at = (random(1, 1), random(1, 1, seed=1))
    torch.testing.assert_close(stability.jacobian(Linear(), at), Linear.matrix)
    values = sorted(stability.eigenvalues(Linear(), at).tolist(), key=lambda value: value.imag)
    assert values == pytest.approx([-0.5 - 2j, -0.5 + 2j])


def test_a_disturbance_of_a_linear_system_shrinks_as_its_eigenvalues_say() -> None:
    one = (random(3, 1), random(3, 1, seed=1))
    other = (random(3, 1, seed=2), random(3, 1, seed=3))
    grown = stability.growth(Linear(), one, other, end=3.0, steps=4)
    expected = torch.exp(-0.5 * torch.linspace(0, 3, 5, dtype=torch.float64))[:, None].expand(5, 3)
    torch.testing.assert_close(grown, expected, rtol=1e-4, atol=1e-8)


def test_a_jacobian_is_that_of_one_row_and_not_too_large() -> None:
    field = block(widths=(2, 3)).flow.field
    with pytest.raises(ValueError, match="one image, not of 2"):
        stability.jacobian(field, state(rows=2))
    with pytest.raises(ValueError, match="4096 numbers or fewer, not 5120"):
        stability.jacobian(field, (torch.zeros(1, 3, 32, 32), torch.zeros(1, 2, 32, 32)))


def test_blocks_of_a_network_start_where_its_images_lead() -> None:
    model = built(SONet(width=4), DIGITS).train()
    x = random(2, *DIGITS).float()
    found = stability.starts(model, x)
    assert [flow.name for flow, _ in found] == [*(f"sonet.block{place}" for place in range(5)), "sonet.classifier"]
    torch.testing.assert_close(found[0][1][1], x)
    assert [tuple(begin[0].shape[1:]) for _, begin in found[-2:]] == [(32, 1, 1), (10,)]
    torch.testing.assert_close(found[1][1][1], found[0][0](*found[0][1])[0])
    assert model.training
    assert not any(flow._forward_pre_hooks for flow, _ in found)
