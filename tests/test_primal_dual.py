"""The weights of the two aims, step by step, and the schedule of the step lengths."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms import primal_dual

X = torch.zeros(2, 1, 2, 2, dtype=torch.float64)


def gap(logarithms: torch.Tensor) -> list[float]:
    return (logarithms[:, 1] - logarithms[:, 0]).tolist()


def test_the_classs_weight_rises_by_equal_factors_until_its_limit() -> None:
    logarithms, average = primal_dual.weights(X, 0.1)
    standing, fooled = torch.tensor([-3.0, 0.2], dtype=torch.float64)
    for step in range(1, 201):
        value = torch.stack([standing, fooled])
        logarithms, average = primal_dual.advance(logarithms, average, value, 0.1)
        up = min(math.log(10) + 0.1 * step, math.log(1e6))
        down = max(math.log(10) - 0.1 * step, -math.log(1e6))
        assert gap(logarithms) == pytest.approx([up, down])
        assert torch.allclose(logarithms.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_the_average_follows_by_a_tenth() -> None:
    logarithms, average = primal_dual.weights(X, 1.0)
    assert torch.allclose(average, torch.full((2, 2), 0.5, dtype=torch.float64))
    ahead, average = primal_dual.advance(logarithms, average, torch.tensor([-1.0, -1.0]).double(), math.log(3))
    assert torch.allclose(ahead.exp(), torch.tensor([[0.25, 0.75]]).double())
    assert torch.allclose(average, torch.tensor([[0.475, 0.525]]).double())  # 0.9 of a half and 0.1 of a quarter


def test_a_tie_leaves_the_weights_alone() -> None:
    logarithms, average = primal_dual.weights(X, 0.3)
    after, _ = primal_dual.advance(logarithms, average, torch.zeros(2).double(), 0.1)
    assert torch.allclose(after, logarithms)


def test_steps_fall_to_a_hundredth_and_a_tenth_and_again_when_tuning() -> None:
    lengths = [primal_dual.pace(2.0, 0.1, k, 200, 100) for k in range(200)]
    assert (lengths[0].primal, lengths[0].dual, lengths[0].from_best) == (2.0, 0.1, False)
    assert lengths[50].primal == pytest.approx(0.2)
    assert lengths[50].dual == pytest.approx(0.055)
    assert (lengths[100].primal, lengths[100].dual) == pytest.approx((0.02, 0.01))
    assert lengths[150].primal == pytest.approx(0.002)
    assert [k for k, pace in enumerate(lengths) if pace.from_best] == [100]
    assert [lengths[k].seen for k in (0, 99, 100, 199)] == [1, 100, 1, 100]


def test_the_pull_is_the_slope_of_softplus() -> None:
    margin = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.nn.functional.softplus(-margin).sum(), margin)
    assert torch.allclose(primal_dual.pull(margin), -slope)
