"""Spectra, the growth of a perturbation, and batch norms folded into the layers before them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from algorithms.control import folding
from algorithms.control.constraints.box import Box
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.spectra import growth, spectra, spectrum
from tests.control.networks import batch, plain, residual


def test_a_square_weight_has_eigenvalues_and_any_other_has_not() -> None:
    rotation = spectrum(2 * torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    assert rotation.norm == pytest.approx(2)
    assert rotation.radius == pytest.approx(2)
    assert rotation.eigenvalues is not None
    assert sorted(rotation.eigenvalues.imag.tolist()) == pytest.approx([-2, 2])
    nilpotent = spectrum(torch.tensor([[0.0, 5.0], [0.0, 0.0]]))
    assert (nilpotent.norm, nilpotent.radius) == pytest.approx((5, 0))
    wide = spectrum(torch.tensor([[3.0, 0.0, 4.0]]))
    assert wide.singular_values.tolist() == pytest.approx([5])
    assert wide.radius is wide.eigenvalues is None


def test_only_weights_of_two_axes_have_a_spectrum() -> None:
    found = spectra(dict(residual().named_parameters()))
    assert list(found) == ["0.weight", "3.conv.weight", "5.weight"]
    assert len(found["0.weight"].singular_values) == 4


def test_growth_is_that_of_each_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False), nn.ReLU(inplace=True), nn.Linear(4, 1)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.diag(torch.tensor([2.0, -3.0, 1.0, 1.0])))
        model[3].weight.copy_(torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
    x = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    step = torch.zeros_like(x)
    step[0, 0, 0, 0], step[1, 0, 0, 1] = 0.1, 0.1  # the first is doubled; the second is tripled, then cut by the ReLU
    grown = growth(model, x, step)
    expected = {"0": [1, 1], "1": [2, 3], "2": [2, 0], "3": [1, 0]}
    assert {name: pytest.approx(values.tolist(), abs=1e-9) for name, values in grown.items()} == expected


def test_growth_stays_below_the_product_of_norms_and_counts_passes() -> None:
    model = plain()
    x, _ = batch(1)
    grown = growth(model, x, 0.01 * torch.randn_like(x))
    assert list(grown) == [str(k) for k in range(9)]
    relu = nn.ReLU()
    assert list(growth(nn.Sequential(relu, nn.Identity(), relu), x, x + 1)) == ["0", "1", "0 2"]
    with pytest.raises(ValueError, match="rows other than zero"):
        growth(model, x, torch.zeros_like(x))


def test_a_folded_projection_bounds_what_a_batch_norm_makes_of_the_layer() -> None:
    theta = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.tensor([10.0, 0.0, -0.1], dtype=torch.float64)
    projected = folding.through(SpectralNorm().project, theta, scale)
    folded = scale[:, None] * projected
    u, s, v = torch.linalg.svd(scale[:, None] * theta, full_matrices=False)
    torch.testing.assert_close(folded, (u * s.clamp(max=1)) @ v, rtol=0, atol=1e-12)
    assert torch.equal(projected[1], theta[1])  # a channel of scale 0 says nothing
    assert folding.measure(SpectralNorm(), projected, scale) <= 1 + 1e-9
    assert folding.through(SpectralNorm(bound=1e3).project, theta, scale) is theta
    assert torch.equal(folding.through(Box().project, theta, None), theta.clamp(-1, 1))


def test_scales_are_those_of_the_batch_norm_after_a_layer() -> None:
    model = residual()
    with torch.no_grad():
        model[1].weight.fill_(-3.0)
        model[1].running_var.fill_(0.01)
    plain = torch.full((4,), 1 / (0.01 + 1e-5) ** 0.5, dtype=torch.float64)
    scales, followers = folding.scales(model), folding.followers(model)
    assert list(scales) == ["0.weight"]
    torch.testing.assert_close(scales["0.weight"], -3 * plain)
    assert folding.measure(SpectralNorm(), model[0].weight, scales["0.weight"]) > 5
    assert {name: follower.weight for name, follower in followers.items()} == {
        "0.weight": "1.weight",
        "1.weight": None,
        "3.norm.weight": None,
    }
    torch.testing.assert_close(followers["0.weight"].plain, plain)
    torch.testing.assert_close(followers["1.weight"].plain, plain)
