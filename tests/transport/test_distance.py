"""The exact distance, against POT and against cases worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import ot
import pytest
import torch
from torch import Tensor

from algorithms.transport_distance import distance
from tests.transport.oracle import costs, digits


def pot(x: Tensor, x_adv: Tensor, power: int, metric: str) -> float:
    """By POT's network simplex, over all moves; channel by channel."""
    pairs = zip(x.double().flatten(1).numpy(), x_adv.double().flatten(1).numpy(), strict=True)
    matrix = costs(*x.shape[1:], power, metric)
    return float(sum(ot.emd2(a, b * a.sum() / b.sum(), matrix) for a, b in pairs)) / x.double().sum().item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("power", [1, 2])
def test_it_is_pots_for_both_cost_matrices(power: Any, metric: Any, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(2)
    x = torch.rand(2, 3, 5, 6, generator=rng, dtype=torch.float64) * 0.8
    x[:, :, 2:] *= torch.rand(x[:, :, 2:].shape, generator=rng) > 0.5  # black pixels too
    mixed = 0.7 * x + 0.3 * x[..., torch.randperm(6, generator=rng)]  # keeps the mass of each channel
    found = distance(x.to(dtype), mixed.to(dtype), 0, power, metric)
    exact = [pot(*pair, power, metric) for pair in zip(x, mixed, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(exact, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_a_window_bounds_each_move() -> None:
    x = torch.zeros(1, 1, 6, 6)
    x[..., 1:3, 1:3] = 0.5
    for window, shift, expected in ((3, 1, 1.0), (5, 1, 1.0), (0, 1, 1.0), (5, 2, 4.0), (3, 2, math.inf)):
        assert distance(x, torch.roll(x, shift, 3), window, 2, "l2").item() == pytest.approx(expected)


def test_mass_that_came_or_went_leaves_no_distance() -> None:
    x = digits(2)[0]
    assert distance(x, x, 5, 2, "l2").tolist() == [0, 0]
    assert distance(x, 0.99 * x, 5, 2, "l2").tolist() == [math.inf, math.inf]
    rounded = x * (1 + 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    assert distance(x, rounded, 5, 2, "l2").max() < 1e-5
    assert distance(0 * x, x, 5, 2, "l2").tolist() == [math.inf, math.inf]
    assert np.array_equal(distance(0 * x, 0 * x, 5, 2, "l2").numpy(), [0, 0])
