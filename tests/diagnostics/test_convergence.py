"""Convergence of adversarial examples: by hand on a linear model, against NumPy, and along PGD."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.attacks.ddn import DDN
from algorithms.attacks.pgd import PGD
from algorithms.attacks.square import Square
from algorithms.diagnostics.convergence import Ball, ball_of, converged, correlation, groups, trajectory
from tests.attacks.cheap import OTHER_BALL, cheap
from tests.networks import Affine, classes_of, images, small


def linear() -> tuple[Affine, Tensor]:
    """Logits (0, w . x) with two images of four pixels in the middle of the box."""
    w = torch.tensor([1.0, -2.0, 0.5, -0.25], dtype=torch.float64)
    return Affine(torch.stack([torch.zeros(4, dtype=torch.float64), w])), torch.full(
        (2, 1, 2, 2), 0.5, dtype=torch.float64
    )


def test_on_a_linear_model_by_hand() -> None:
    """For class 0 the gradient is p w, and from the centre of the ball the condition is eps p |w|_1."""
    model, x = linear()
    gap = -0.375  # of the logits: 0.5 (1 - 2 + 0.5 - 0.25)
    p = 1 / (1 + math.exp(-gap))
    found = converged(model, x, x, torch.tensor([0, 1]), Ball("linf", 0.2))
    expected = [0.2 * 3.75 * p, 0.2 * 3.75 * (1 - p)]
    assert found.fosc.tolist() == pytest.approx(expected)
    assert found.fosc_box.tolist() == pytest.approx(expected)  # the ball lies in the box
    assert found.loss.tolist() == pytest.approx([-math.log(1 - p), -math.log(p)])
    assert found.right.tolist() == [True, False]
    corner = x + 0.2 * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(1, 1, 2, 2)
    assert converged(model, x, corner, torch.tensor([0, 0]), Ball("linf", 0.2)).fosc.abs().max() < 1e-15


class Rounded(nn.Module):
    """A model that gives no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.flatten(1)[:, :2].round()


def test_without_a_gradient_the_condition_is_unknown_and_the_loss_is_not() -> None:
    found = converged(Rounded(), images(), images(), torch.zeros(6, dtype=torch.int64), Ball("l2", 0.2))
    assert found.fosc.isnan().all()
    assert found.fosc_box.isnan().all()
    assert found.loss.isfinite().all()


def test_groups_by_hand() -> None:
    condition = torch.tensor([0.0, 0.1, 0.25, 0.3, 0.5, 0.7])
    loss = torch.tensor([4.0, 2.0, 1.0, 3.0, 9.0, 9.0])
    right = torch.tensor([False, True, True, True, False, False])
    first, second = groups(condition, loss, right, high=0.5, count=2)
    assert first == (0.0, 0.25, 2, 0.5, 3.0)
    assert second == (0.25, 0.5, 2, 1.0, 2.0)
    (empty,) = groups(condition[:0], loss[:0], right[:0], high=1.0, count=1)
    assert empty.examples == 0
    assert math.isnan(empty.accuracy)


def test_correlation_is_numpys() -> None:
    one, other = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert correlation(one, other + one) == pytest.approx(np.corrcoef(one, other + one)[0, 1], abs=1e-6)
    assert correlation(one, -3 * one) == pytest.approx(-1)
    assert math.isnan(correlation(one, torch.ones(50)))


def test_along_pgd_on_a_linear_model_the_condition_falls_by_a_quarter_a_step() -> None:
    """Of what it was at the centre, but for the slope, which is the model's own at each point."""
    model, x = linear()
    attack = PGD(eps=0.2, step_size=0.05, steps=4, random_start=False)
    y = torch.tensor([0, 0])
    way = trajectory(attack, model, x, y, Ball("linf", 0.2), rng=torch.Generator())
    gaps = torch.tensor([-0.375 + 0.05 * k * 3.75 for k in range(5)], dtype=torch.float64)
    expected = torch.tensor([0.2, 0.15, 0.1, 0.05, 0.0], dtype=torch.float64) * 3.75 * gaps.sigmoid()
    torch.testing.assert_close(way.fosc, expected.unsqueeze(1).expand(5, 2), rtol=0, atol=1e-12)
    torch.testing.assert_close(way.loss[:, 0], nn.functional.softplus(gaps))


def test_a_way_ends_where_the_attack_does_and_examples_that_fool_stay() -> None:
    model, x = small(dtype=torch.float64), images(24, dtype=torch.float64)
    y = classes_of(model, x)
    attack, ball = PGD(eps=0.1, step_size=0.025, steps=8), Ball("linf", 0.1)
    way = trajectory(attack, model, x, y, ball, rng=torch.Generator().manual_seed(3))
    assert way.fosc.shape == way.loss.shape == (9, 24)
    assert (way.loss[-1] > way.loss[0]).all()
    assert way.fosc[-1].mean() < way.fosc[0].mean() / 2
    single = trajectory(Square(eps=0.1, steps=5), model, x, y, ball, rng=torch.Generator().manual_seed(3))
    assert single.fosc.shape == (1, 24)  # it asks for no gradient


@pytest.mark.parametrize("name", plugins.names(Attack))
def test_an_attack_has_a_ball_where_its_radius_says_so(name: str) -> None:
    attack = cheap(plugins.find(Attack, name))
    bounded = hasattr(attack, "eps") and not attack.minimal and name not in OTHER_BALL and attack.norm != "l0"
    assert ball_of(attack) == (Ball(attack.norm, attack.eps) if bounded else None)
    assert ball_of(DDN()) is None
