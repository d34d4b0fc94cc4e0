"""Models: their sizes against published numbers, their layers against the papers, and the contract of every plug-in."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from algorithms import blocks, plugins
from algorithms.batch_norm import folded
from algorithms.models import Model, Shape
from algorithms.models.cnn4 import Cnn4
from algorithms.models.cnn8 import Cnn8
from algorithms.models.cnn9 import Cnn9
from algorithms.models.lenet5 import LeNet5
from algorithms.models.madry_cnn import MadryCnn
from algorithms.models.mlp import Mlp
from algorithms.models.network_in_network import NetworkInNetwork
from algorithms.models.resnet10 import ResNet10
from algorithms.models.resnet18 import ResNet18
from algorithms.models.tempered import Tempered
from algorithms.models.torchvision import Torchvision
from algorithms.models.wide_resnet import WideResNet
from algorithms.models.wong_mnist import WongMnist
from algorithms.normalisation import Normalisation
from tests.sketching import CIFAR, DIGITS, MNIST, built, pixels, sketched

SHAPES = {"digits": DIGITS, "mnist": MNIST, "cifar": CIFAR}
SMALL: dict[str, Model] = {"wide_resnet": WideResNet(depth=10, widen_factor=1)}  # where the default is slow to compute
NAMES = plugins.names(Model)


def default(name: str) -> Model:
    return plugins.find(Model, name)()


def fitting(model: Model) -> Shape:
    """The smallest of the three shapes that the model takes."""
    for shape in SHAPES.values():
        try:
            sketched(model, shape)
        except ValueError:
            continue
        return shape
    raise AssertionError(f"{model} takes none of {SHAPES}")


@pytest.mark.parametrize(
    ("model", "shape", "classes", "count"),
    [
        (Mlp(), MNIST, 10, 785 * 1000 + 2 * 1001 * 1000 + 1001 * 10),
        (Mlp(hidden=(1200, 1200, 1200)), MNIST, 10, 785 * 1200 + 2 * 1201 * 1200 + 1201 * 10),
        (Mlp(hidden=()), DIGITS, 10, 65 * 10),
        (LeNet5(), MNIST, 10, 582_026),  # 32 * 26 + 64 * 801 + 1025 * 512 + 513 * 10
        (MadryCnn(), MNIST, 10, 3_274_634),  # as its authors print it
        (WongMnist(), MNIST, 10, 166_406),  # 16 * 17 + 32 * 257 + 1569 * 100 + 101 * 10
        (Cnn4(), MNIST, 10, 421_834),  # 32 * (10 + 2) + 64 * (289 + 2) + 3137 * 128 + 129 * 10
        # 64 (28 + 577 + 4) + 128 (577 + 1153 + 4) + 196 (1153 + 1765 + 4) + 256 (3137 + 2) + 257 * 10
        (Cnn8(), CIFAR, 10, 1_639_794),
        # 96 (28 + 865) + 192 (865 + 4 * 1729) + 384 * 769 + 6145 * 1200 + 1201 * 10
        (Cnn9(), CIFAR, 10, 9_260_986),
        (NetworkInNetwork(), CIFAR, 10, 966_986),  # published: 0.97 M
        # 32 (27 + 2) + 18_560 + 57_728 + 230_144 + 919_040 + 257 * 10, a stage being 9 w (v + w) + 4 w + v w + 2 w
        (ResNet10(), CIFAR, 10, 1_228_970),  # published: 1.23 M
        (ResNet10(width=64), CIFAR, 10, 4_903_242),  # published: 4.90 M
        (ResNet18(), CIFAR, 10, 11_173_962),  # published
        (WideResNet(), CIFAR, 10, 46_160_474),  # published: 46.16 M
        (WideResNet(depth=28), CIFAR, 10, 36_479_194),  # published: 36.5 M
        (WideResNet(depth=40, widen_factor=4), CIFAR, 10, 8_949_210),  # published: 8.9 M
        (Torchvision(architecture="resnet50"), (3, 64, 64), 1000, 25_557_032),  # as torchvision documents it
        (Torchvision(architecture="mobilenet_v2"), CIFAR, 1000, 3_504_872),  # likewise
    ],
)
def test_number_of_parameters(model: Model, shape: Shape, classes: int, count: int) -> None:
    assert sum(p.numel() for p in sketched(model, shape, classes).parameters()) == count


CONV, DENSE, NORMED = ["Conv2d", "ReLU"], ["Linear", "ReLU"], ["Conv2d", "BatchNorm2d"]
POOL = ["MaxPool2d", "ReLU"]
POOLED, PAIR = ["Conv2d", *POOL], [*NORMED, "ReLU", *NORMED, *POOL]


@pytest.mark.parametrize(
    ("model", "shape", "layers"),
    [
        (Cnn4(), MNIST, 2 * (NORMED + POOL) + ["Flatten", *DENSE, "Linear"]),
        (Cnn8(), CIFAR, 3 * PAIR + ["Flatten", "Linear", "BatchNorm1d", "ReLU", "Linear"]),
        (Cnn9(), CIFAR, 8 * CONV + ["Flatten", *DENSE, "Linear"]),
        (MadryCnn(), MNIST, 2 * POOLED + ["Flatten", *DENSE, "Linear"]),
        (WongMnist(), MNIST, 2 * CONV + ["Flatten", *DENSE, "Linear"]),
        (LeNet5(), MNIST, 2 * POOLED + ["Flatten", *DENSE, "Linear"]),
        (LeNet5(dropout=0.5), MNIST, 2 * POOLED + ["Flatten", "Dropout", *DENSE, "Dropout", "Linear"]),
        (Mlp(), MNIST, ["Flatten", *3 * DENSE, "Linear"]),
        (Mlp(hidden=(20,), dropout=0.5), MNIST, ["Flatten", *DENSE, "Dropout", "Linear"]),
        (
            NetworkInNetwork(),
            CIFAR,
            [
                *("Contrast", *3 * CONV, "MaxPool2d", "Dropout", *3 * CONV, "AvgPool2d", "Dropout"),
                *(*2 * CONV, "Conv2d", "AdaptiveAvgPool2d", "Flatten"),
            ],
        ),
    ],
)
def test_layers_are_those_of_the_paper(model: Model, shape: Shape, layers: list[str]) -> None:
    assert [type(layer).__name__ for layer in sketched(model, shape).children()] == layers


@pytest.mark.parametrize("batch_norm", [False, True])
def test_pooling_before_the_relu_has_the_same_bits_as_the_papers_order(batch_norm: bool) -> None:
    convolution, norm = blocks.normalised(1, 8)
    x = functional.pad(pixels((1, 20, 20)), (4, 4, 4, 4)).requires_grad_(True)  # borders where all of a window tie
    found = []
    for order in (blocks.pooled(), blocks.pooled()[::-1]):
        result = nn.Sequential(convolution, *([norm] if batch_norm else []), *order)(x)
        found.append((result, *torch.autograd.grad(result.pow(2).sum(), (x, convolution.weight))))
    assert 0 < torch.count_nonzero(found[0][0]) < found[0][0].numel()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("model", "sizes"),  # of the image after each layer, on CIFAR-10
    [
        (Cnn9(), [32] * 4 + [16] * 6 + [8] * 4 + [4] * 2),  # each convolution and its ReLU
        (NetworkInNetwork(), [32] * 7 + [16] * 8 + [8] * 7 + [1]),
        (ResNet18(), [32] * 5 + [16] * 2 + [8] * 2 + [4] * 2 + [1]),
        (WideResNet(), [32] * 6 + [16] * 5 + [8] * 7 + [1]),
    ],
)
def test_image_shrinks_as_in_the_paper(model: Model, sizes: list[int]) -> None:
    x, seen = torch.empty(2, *CIFAR, device="meta"), []
    for layer in sketched(model, CIFAR).children():
        x = layer(x)
        seen += [x.shape[3]] if x.dim() == 4 else []
    assert seen == sizes


def test_a_tempered_network_is_the_network_with_larger_logits() -> None:
    inner = Mlp(hidden=(8,))
    network, plain = (built(model, DIGITS) for model in (Tempered(model=inner, factor=3.0), inner))
    assert list(network.state_dict()) == list(plain.state_dict())
    network.load_state_dict(plain.state_dict())
    torch.testing.assert_close(network(pixels(DIGITS)), 3 * plain(pixels(DIGITS)))
    whole = Tempered(model=ResNet18(width=4))
    assert len(whole.build(CIFAR, 10).state_dict()) == len(ResNet18(width=4).build(CIFAR, 10).state_dict())
    with pytest.raises(ValueError, match="factor: a number above 0"):
        Tempered(factor=0.0)


# The contract of every plug-in.


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_returns_logits_or_says_what_it_needs(name: str, shape: Shape) -> None:
    try:
        network = sketched(default(name), shape, 7)
    except ValueError as error:
        message = str(error)
        assert all(part in message for part in (name, f"{shape[1]}x{shape[2]}"))
    else:
        assert network.eval()(torch.empty(2, *shape, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_takes_one_of_the_usual_shapes_and_a_single_row(name: str) -> None:
    model = SMALL.get(name, default(name))
    x = pixels(shape := fitting(model))
    network = built(model, shape).eval()
    with torch.no_grad():
        together, alone = network(x), network(x[:1])
    assert together.isfinite().all()
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-5)
    assert (together[0] != together[1]).any()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name: str) -> None:
    model = SMALL.get(name, default(name))
    network = built(model, shape := fitting(model))
    functional.cross_entropy(network.train()(pixels(shape)), torch.arange(4)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or parameter.dim() == 1, key  # a bias before batch norm has no effect


@pytest.mark.parametrize("name", NAMES)
def test_attackers_who_fold_its_batch_norms_see_the_same_function(name: str) -> None:
    model = SMALL.get(name, default(name))
    network = built(model, shape := fitting(model))
    with torch.no_grad():
        network.train()(pixels(shape))  # statistics that no fresh network has
        expected = network.eval()(pixels(shape))
        with folded(network):
            torch.testing.assert_close(network(pixels(shape)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_value(name: str) -> None:
    model = default(name)
    assert pickle.loads(pickle.dumps(model)) == model == default(name)
    assert hash(model) == hash(default(name))


def test_shapes_that_are_too_small() -> None:
    with pytest.raises(ValueError, match=r"lenet5 needs images of 16x16 pixels or more, not 8x8; choose another"):
        sketched(LeNet5(), DIGITS)
    refused = [
        (LeNet5(), 16, 15),
        (Cnn4(), 4, 3),
        (Cnn8(), 8, 7),
        (Cnn9(), 5, 4),
        (MadryCnn(), 4, 3),
        (WongMnist(), 4, 3),
        (NetworkInNetwork(), 4, 3),
    ]
    for model, enough, fewer in refused:
        x = torch.empty(2, 1, enough, enough + 3, device="meta")
        assert sketched(model, (1, enough, enough + 3))(x).shape == (2, 10)
        with pytest.raises(ValueError, match=f"{enough}x{enough} pixels or more, not {enough + 3}x{fewer}"):
            sketched(model, (1, enough + 3, fewer))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mlp", {"hidden": (10, 0)}, "hidden"),
        ("mlp", {"dropout": 1.0}, "dropout"),
        ("cnn4", {"width": 0}, "width"),
        ("cnn8", {"widths": (64, -1, 3)}, "widths"),
        ("wide_resnet", {"depth": 30}, r"depth: .* not 30"),
        ("wide_resnet", {"depth": 4}, r"depth: .* not 4"),
        ("wide_resnet", {"widen_factor": 0}, "widen_factor"),
    ],
)
def test_settings_that_make_no_sense(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plugins.find(Model, name)(**settings)


def normalising(model: Model, normalisation: Normalisation) -> Model:
    """The model, or for one that wraps another that one, with this normalisation."""
    if isinstance(model, Tempered):
        return replace(model, model=normalising(model.model, normalisation))
    return replace(model, normalisation=normalisation)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_normalises_inside(name: str) -> None:
    model = SMALL.get(name, default(name))
    plain = normalising(model, Normalisation())
    normalised = normalising(model, Normalisation(mean=(0.25,), std=(0.5,)))
    x = pixels(shape := fitting(plain), 2)
    torch.testing.assert_close(built(normalised, shape).eval()(x), built(plain, shape).eval()((x - 0.25) * 2))
