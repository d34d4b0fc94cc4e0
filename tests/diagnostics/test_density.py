"""Kernel densities against scipy's, and the cases that it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde
from torch import Tensor

from algorithms.diagnostics import density as module
from algorithms.diagnostics.density import bandwidth, density, mass


def values(count: int = 300) -> Tensor:
    return torch.empty(count, dtype=torch.float32).exponential_(8.0, generator=torch.Generator().manual_seed(0))


def test_it_is_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, at = values(), torch.linspace(-0.2, 1, 50)
    expected = gaussian_kde(sample.double().numpy())
    np.testing.assert_allclose(density(sample, at).numpy(), expected(at.double().numpy()), rtol=1e-10)
    assert mass(sample, 0.0, 0.1) == pytest.approx(expected.integrate_box_1d(0.0, 0.1), abs=1e-10)
    monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(density(sample, at).numpy(), expected(at.double().numpy()), rtol=1e-10)


def test_it_integrates_to_one() -> None:
    at = torch.linspace(-1, 4, 5001, dtype=torch.float64)
    assert torch.trapezoid(density(values(), at), at).item() == pytest.approx(1, abs=1e-6)
    assert mass(values(), -100, 100) == pytest.approx(1, abs=1e-12)


def test_two_equal_samples_have_one_density_whatever_their_order() -> None:
    sample, at = values(), torch.linspace(0, 1, 20)
    assert torch.equal(density(sample, at), density(sample.clone(), at))
    torch.testing.assert_close(density(sample, at), density(sample.flip(0), at), rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("count", [1, 5])
def test_equal_values_have_a_narrow_density(value: float, count: int) -> None:
    sample = torch.full((count,), value)
    assert 0 < bandwidth(sample) <= 1e-3 * max(value, 1e-9)
    assert mass(sample, value - 0.01, value + 0.01) == pytest.approx(1, abs=1e-3)
    assert torch.isfinite(density(sample, torch.tensor([value]))).all()


@pytest.mark.parametrize("wrong", [torch.zeros(0), torch.zeros(2, 2), torch.tensor([0.0, torch.nan])])
def test_what_has_no_density_is_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="values: finite numbers"):
        density(wrong, torch.zeros(1))
