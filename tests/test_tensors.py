"""Helpers for tensors, against torch's own."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.tensors import finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_one_value_among_many_that_is_not_finite_is_found(value: float, dtype: torch.dtype) -> None:
    values = torch.full((37, 29), torch.finfo(dtype).max, dtype=dtype)  # the largest is finite, and a sum would not be
    values[5] = -values[5]
    assert finite(values)
    for place in (0, 500, values.numel() - 1):
        spoilt = values.flatten().index_fill(0, torch.tensor(place), value)
        assert not finite(spoilt)
        assert not finite(spoilt.view(37, 29).t())


def test_no_value_is_finite() -> None:
    assert finite(torch.empty(0, 3))
