"""What networks are made of: residual blocks against torchvision's and by hand, initial weights, normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from algorithms import blocks, vision
from algorithms.models import Model, Shape
from algorithms.models.cnn4 import Cnn4
from algorithms.models.lenet5 import LeNet5
from algorithms.models.mlp import Mlp
from algorithms.models.network_in_network import NetworkInNetwork
from algorithms.models.wide_resnet import WideResNet
from algorithms.normalisation import Normalisation, Whiten
from tests.sketching import CIFAR, MNIST, built, pixels


@pytest.mark.parametrize(("channels", "width", "stride"), [(8, 8, 1), (8, 16, 2)])
def test_basic_block_is_that_of_torchvision(channels: int, width: int, stride: int) -> None:
    resnet = vision.torchvision().models.resnet
    shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    theirs = resnet.BasicBlock(channels, width, stride, shortcut if stride > 1 else None)
    ours = blocks.BasicBlock(channels, width, stride)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = pixels((channels, 6, 6)) - 0.5
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(("channels", "width", "stride"), [(8, 8, 1), (8, 16, 1), (8, 16, 2)])
def test_pre_activation_block_by_hand(channels: int, width: int, stride: int) -> None:
    block = blocks.PreActivationBlock(channels, width, stride, 0.3).eval()
    first, second = (layer.weight for layer in block.branch if isinstance(layer, nn.Conv2d))
    x = pixels((channels, 6, 6)) - 0.5
    scale = (1 + 1e-5) ** -0.5  # of fresh batch norm in evaluation mode
    active = functional.relu(x * scale)
    inside = functional.relu(functional.conv2d(active, first, stride=stride, padding=1) * scale)
    kept = x if channels == width else functional.conv2d(active, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), kept + functional.conv2d(inside, second, padding=1))


@pytest.mark.parametrize("model", [Mlp(initialisation="glorot"), LeNet5(initialisation="glorot")])
def test_glorot_weights_fill_their_interval(model: Model) -> None:
    for layer in built(model, MNIST).modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            area = layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1
            bound = math.sqrt(6 / (area * sum(layer.weight.shape[:2])))
            assert 0.98 * bound < layer.weight.abs().max() <= bound
            assert not layer.bias.any()


@pytest.mark.parametrize(
    ("model", "shape", "std"),
    [
        (Mlp(initialisation="he"), MNIST, lambda w: math.sqrt(2 / w[0].numel())),
        (NetworkInNetwork(), CIFAR, lambda w: 0.05),
        (WideResNet(depth=10, widen_factor=2), CIFAR, lambda w: math.sqrt(2 / w[:, 0].numel())),
    ],
)
def test_deviation_of_initial_weights(model: Model, shape: Shape, std: Any) -> None:
    for layer in built(model, shape).modules():
        if isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.Linear) and isinstance(model, Mlp)):
            assert layer.weight.std().item() == pytest.approx(
                std(layer.weight), rel=5 / math.sqrt(layer.weight.numel())
            )


def test_channels_are_standardised_by_their_own_numbers() -> None:
    layers = Normalisation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125)).layers(CIFAR)
    y = nn.Sequential(*layers)(torch.full((2, 3, 4, 4), 0.6))
    torch.testing.assert_close(y[1, :, 2, 3], torch.tensor([1.0, 1.6, 2.4]))
    assert not nn.Sequential(*layers).state_dict()  # settings do not travel in snapshots


def test_contrast_of_each_image() -> None:
    (contrast,) = Normalisation(contrast=True).layers(CIFAR)
    x = pixels(CIFAR)
    y = contrast(x)
    torch.testing.assert_close(y.mean(dim=(1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=(1, 2, 3)), torch.ones(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(contrast(0.5 * x + 0.2), y, atol=2e-2, rtol=0)  # light and contrast do not matter
    plain = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)  # an image of one colour: no division by zero
    y = contrast(plain)
    (gradient,) = torch.autograd.grad(y[0, 0, 0, 0], plain)
    assert not y.any()
    assert gradient.isfinite().all()


def test_whitening_multiplies_by_the_inverse_root_of_the_covariance() -> None:
    (whiten,) = Normalisation(contrast=True, whitening=0.1).layers((1, 4, 4))
    assert isinstance(whiten, Whiten)
    rng = torch.Generator().manual_seed(3)
    images = torch.rand(500, 1, 4, 4, generator=rng).cumsum(3) / 4  # neighbours are alike
    (contrast,) = Normalisation(contrast=True).layers((1, 4, 4))
    before = contrast(images)
    torch.testing.assert_close(whiten(images), before)  # not fitted yet
    whiten.fit(images)
    expected = np.cov(before.flatten(1).double().numpy(), rowvar=False, bias=True) + 0.1 * np.eye(16)
    matrix = whiten.matrix.double().numpy()
    np.testing.assert_allclose(matrix @ expected @ matrix, np.eye(16), atol=1e-4)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    after = whiten(images).flatten(1)
    torch.testing.assert_close(after.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    assert set(whiten.state_dict()) == {"mean", "matrix"}  # the network is whole without its data


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((125.3,), (63.0,), "mean: a mean in pixel units"),
        ((0.5,), (0.0,), "std: a standard deviation"),
        ((0.5,), (), "as many numbers in one as in the other, not 1 and 0"),
    ],
)
def test_normalisation_that_makes_no_sense(mean: tuple[float, ...], std: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalisation(mean=mean, std=std)


def test_normalisation_of_other_channels() -> None:
    with pytest.raises(ValueError, match="each of the 1 channels, not 3"):
        Cnn4(normalisation=Normalisation(mean=(0.1, 0.2, 0.3), std=(1, 1, 1))).build(MNIST, 10)
