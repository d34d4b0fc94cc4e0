"""Convolutions of pixels against torch's own, to the second order."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from algorithms import convolution
from algorithms.attacks.pgd import PGD
from algorithms.convolution import PixelConv2d
from algorithms.models.lenet5 import LeNet5
from workers import runtime

LAYERS: dict[str, Callable[[], nn.Conv2d]] = {
    "one channel": lambda: nn.Conv2d(1, 3, 3),
    "padded": lambda: nn.Conv2d(1, 2, 5, padding=2),
    "strides": lambda: nn.Conv2d(3, 4, 4, stride=2, padding=1),
    "unlike axes": lambda: nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 0)),
    "no bias": lambda: nn.Conv2d(3, 2, 1, stride=3, bias=False),
}


def quick(layer: nn.Conv2d) -> nn.Conv2d:
    """A copy of the layer with the quick gradient."""
    twin = copy.deepcopy(layer)
    twin.__class__ = PixelConv2d
    return twin


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images that require gradients."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_(True)


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    layer = LAYERS[name]().double()
    twin, x = quick(layer), drawn(2, layer.in_channels, 7, 6)
    assert type(twin) is PixelConv2d
    assert torch.equal(twin(x), layer(x))
    expected = torch.autograd.grad(layer(x).pow(3).sum(), (x, *layer.parameters()))
    for one, other in zip(torch.autograd.grad(twin(x).pow(3).sum(), (x, *twin.parameters())), expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_of_gradients_agree_with_finite_differences(name: str) -> None:
    twin = quick(LAYERS[name]().double())
    names, values = zip(*twin.named_parameters(), strict=True)

    def applied(x: Tensor, *weights: Tensor) -> Tensor:
        found: Tensor = functional_call(twin, dict(zip(names, weights, strict=True)), (x,))
        return found

    assert torch.autograd.gradcheck(applied, (drawn(2, twin.in_channels, 5, 4), *values))
    assert torch.autograd.gradgradcheck(applied, (drawn(2, twin.in_channels, 5, 4), *values))


def test_a_gradient_for_pixels_computes_none_for_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Tensor:
        raise AssertionError("a gradient for weights")

    monkeypatch.setattr(convolution, "_for_weights", refused)
    twin, x = quick(nn.Conv2d(1, 3, 3)), drawn(2, 1, 6, 6, dtype=torch.float32)
    torch.autograd.grad(twin(x).sum(), x, retain_graph=True)
    with pytest.raises(AssertionError, match="a gradient for weights"):
        torch.autograd.grad(twin(x).sum(), twin.weight)


def test_a_gradient_for_weights_computes_none_for_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    twin, x = quick(nn.Conv2d(1, 3, 3)), drawn(2, 1, 6, 6, dtype=torch.float32)
    (slope,) = torch.autograd.grad(twin(x).square().sum(), x, create_graph=True)

    def refused(*_: Any) -> Tensor:
        raise AssertionError("a gradient for pixels")

    monkeypatch.setattr("torch.nn.functional.fold", refused)
    torch.autograd.grad(slope.square().sum(), twin.weight, retain_graph=True)
    with pytest.raises(AssertionError, match="a gradient for pixels"):
        torch.autograd.grad(slope.square().sum(), x)


def test_training_on_fixed_images_has_the_bits_of_torch() -> None:
    layer = nn.Conv2d(3, 8, 3)
    twin, x = quick(layer), drawn(4, 3, 9, 9, dtype=torch.float32).detach()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    assert torch.equal(torch.autograd.grad(twin(x).square().sum(), twin.weight)[0], expected)


def test_what_follows_may_work_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
    twin, x = copy.deepcopy(network), drawn(2, 1, 6, 6, dtype=torch.float32)
    convolution.quicken(twin.modules())
    (expected,) = torch.autograd.grad(network(x).square().sum(), x)
    torch.testing.assert_close(torch.autograd.grad(twin(x).square().sum(), x)[0], expected)


def test_bfloat16_gradients_are_no_less_exact_than_those_of_torch() -> None:
    layer = nn.Conv2d(1, 32, 5, padding=2)
    x = drawn(16, 1, 28, 28, dtype=torch.float32)
    (exact,) = torch.autograd.grad(layer(x).square().sum(), x)
    errors = []
    for lowered in (layer.bfloat16(), quick(layer.bfloat16())):
        x_low = x.detach().bfloat16().requires_grad_(True)
        (found,) = torch.autograd.grad(lowered(x_low).square().sum(), x_low)
        errors.append((found.float() - exact).norm() / exact.norm())
    assert errors[1] <= 1.1 * errors[0] < 0.02


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_other_convolutions_stay_as_they_are(layer: nn.Conv2d) -> None:
    convolution.quicken(layer.modules())
    assert type(layer) is nn.Conv2d


def test_workers_have_it_in_either_precision() -> None:
    model = runtime.arranged(LeNet5().build((1, 28, 28), 10))
    for opponent in (model, runtime.lowered(model, "bfloat16")):
        assert [type(one) for one in opponent.modules() if isinstance(one, nn.Conv2d)] == [PixelConv2d, nn.Conv2d]


def test_a_search_has_it_and_the_model_is_as_before() -> None:
    torch.manual_seed(0)
    model, seen = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double(), []
    model[0].register_forward_hook(lambda layer, *_: seen.append(type(layer)))
    x = torch.rand(5, 1, 6, 6, dtype=torch.float64)
    y = model(x).argmax(1)
    PGD(eps=0.1, steps=3)(model, x, y, rng=torch.Generator().manual_seed(0))
    assert set(seen[1:]) == {PixelConv2d}
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(ValueError, match="labels 0 to 3"):
        PGD()(model, x, y + 4, rng=torch.Generator())
    assert type(model[0]) is nn.Conv2d


def test_inside_another_search_it_stays_and_a_compiled_model_keeps_its_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3))
    with convolution.quickened(model):
        with convolution.quickened(model):
            pass
        assert type(model[0]) is PixelConv2d
    with convolution.quickened(torch.compile(model)):  # which compiles at its first pass
        assert type(model[0]) is nn.Conv2d
