"""The theorem's constants on a quadratic whose constants are known, its terms by hand, and the step of its proof."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from algorithms.diagnostics.fosc import fosc
from algorithms.diagnostics.minimax import Bound, Constants, bound, estimate
from tests.networks import classes_of, images, small

MU = 1.5


class Quadratic(nn.Module):
    """f = theta . x - mu |x - 1/2|^2 / 2: L_tt is 0, L_tx and L_xt are 1."""

    def __init__(self, mu: float = MU) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64))
        self.mu = mu

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return flat @ self.theta - self.mu / 2 * (flat - 0.5).square().sum(1)


def value(outputs: Tensor, y: Tensor) -> Tensor:
    return outputs


def pairs(count: int = 7) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, count, 1, 2, 2, generator=rng, dtype=torch.float64)
    return one, other


def test_on_a_quadratic_the_constants_are_what_they_are() -> None:
    one, other = pairs()
    found = estimate(Quadratic(), (one, other), torch.zeros(7, dtype=torch.int64), batch=5, value=value)
    assert found.parameters == pytest.approx(0, abs=1e-12)
    assert found.mixed == pytest.approx(1)
    assert found.inputs == pytest.approx(1)
    assert found.concavity == pytest.approx(MU)
    assert found.variance == pytest.approx(one.flatten(1).var(0).sum().item() / 5)  # the gradient is the image


def test_a_convex_loss_has_no_bound() -> None:
    found = estimate(Quadratic(-0.5), pairs(), torch.zeros(7, dtype=torch.int64), batch=5, value=value)
    assert found.concavity == pytest.approx(-0.5)
    assert bound(found, 0.1, 1.0, 100) == Bound(math.inf, math.inf)


def test_the_terms_by_hand() -> None:
    """L = 2 * 3 / 1.5 + 4 = 8, so 4 * 0.5 * sqrt(8 * 2 / 400) = 0.4 and 5 * 4 * 0.03 / 1.5 = 0.4."""
    terms = bound(Constants(4.0, 2.0, 3.0, 1.5, 0.25), delta=0.03, gap=2.0, steps=400)
    assert terms == pytest.approx((0.4, 0.4))


def test_the_condition_bounds_the_distance_to_the_best_image() -> None:
    """The proof's step from delta to the parameters' gradient: |x_adv - best|^2 <= fosc / mu."""
    model, (x, there) = Quadratic(), pairs(200)
    x_adv = x + 0.2 * (2 * there - 1)
    slope = model.theta.view(1, 1, 2, 2) - MU * (x_adv - 0.5)
    peak = 0.5 + (model.theta / MU).view(1, 1, 2, 2)
    best = torch.minimum(torch.maximum(peak, x - 0.2), x + 0.2)
    squared = (x_adv - best).square().flatten(1).sum(1)
    gap = fosc(x, x_adv, slope, "linf", 0.2)
    assert (squared <= gap / MU + 1e-12).all()
    assert (squared > 0.3 * gap / MU).any()  # it is no empty bound


def test_a_network_is_left_as_it_was() -> None:
    model, x = small(dtype=torch.float64), images(4, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    found = estimate(model, (x, (x + 0.05).clamp(0, 1)), classes_of(model.eval(), x), batch=4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert min(found.parameters, found.mixed, found.inputs, found.variance) > 0
