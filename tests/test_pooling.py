"""Max-pooling against torch's own, to the third order."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from algorithms import pooling
from algorithms.models.lenet5 import LeNet5
from algorithms.pooling import PickingMaxPool2d
from workers import runtime

LAYERS = {
    "by two": nn.MaxPool2d(2),
    "overlapping": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "unlike axes": nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0)),
    "dilated": nn.MaxPool2d(2, dilation=2),
}


def quick(layer: nn.MaxPool2d) -> nn.MaxPool2d:
    """A copy of the layer with the quick second derivative."""
    twin = copy.deepcopy(layer)
    pooling.quicken(twin.modules())
    assert type(twin) is PickingMaxPool2d
    return twin


def drawn(*shape: int) -> Tensor:
    """Numbers in [0, 1), no two alike, that require gradients."""
    count = torch.Size(shape).numel()
    places = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    return (places.double() / count).view(shape).requires_grad_(True)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_both_derivatives_are_those_of_torch(name: str, order: torch.memory_format) -> None:
    x = drawn(2, 4, 7, 6).float().round(decimals=1).contiguous(memory_format=order)  # some are alike
    x = x.detach().requires_grad_(True)
    found = []
    for layer in (LAYERS[name], quick(LAYERS[name])):
        value = layer(x)
        (slope,) = torch.autograd.grad(value.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((slope * x.exp()).sum(), x)
        found.append((value, slope, second))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_third_derivatives_agree_with_finite_differences(name: str) -> None:
    layer = quick(LAYERS[name])

    def slope(x: Tensor) -> Tensor:
        return torch.autograd.grad(layer(x).pow(4).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, drawn(1, 2, 5, 4), atol=1e-3)


def test_what_follows_may_work_in_place() -> None:
    layer, x = nn.MaxPool2d(2), drawn(2, 1, 6, 6)
    (expected,) = torch.autograd.grad(nn.ReLU()(layer(x - 0.5)).sum(), x)
    assert torch.equal(torch.autograd.grad(nn.ReLU(inplace=True)(quick(layer)(x - 0.5)).sum(), x)[0], expected)


def test_a_pooling_that_returns_places_stays_as_it_is() -> None:
    layer = nn.MaxPool2d(2, return_indices=True)
    pooling.quicken(layer.modules())
    assert type(layer) is nn.MaxPool2d


def test_workers_have_it() -> None:
    model = runtime.arranged(LeNet5().build((1, 28, 28), 10))
    assert sum(type(layer) is PickingMaxPool2d for layer in model.modules()) == 2
