"""What workers' layers save of an attack's pass and of learning from input gradients.

Max-pooling before the ReLU, quick derivatives, and in attacks batch norms folded into the layers before them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.batch_norm import folded
from algorithms.convolution import PixelConv2d
from algorithms.defenses.margin import Margin
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.models.lenet5 import LeNet5
from algorithms.models.madry_cnn import MadryCnn
from algorithms.models.wong_mnist import WongMnist
from algorithms.modes import frozen
from algorithms.pooling import PickingMaxPool2d
from benchmarks.measuring import CPU, Row, compare
from workers import runtime
from workers.messages import Precision

PAIRS, PASSES, BATCH = 5, 3, 64
SHAPE, CLASSES = (1, 28, 28), 10
MODELS: dict[str, Model] = {"lenet5": LeNet5(), "wong_mnist": WongMnist(), "cnn4": Cnn4(), "madry_cnn": MadryCnn()}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
PLAIN: dict[type[nn.Module], type[nn.Module]] = {PixelConv2d: nn.Conv2d, PickingMaxPool2d: nn.MaxPool2d}


def run() -> list[Row]:
    """A row a network and a precision for passes, and one a network for learning by `Margin`."""
    passes = [passing(name, precision) for name in MODELS for precision in PRECISIONS]
    return passes + [learning(name) for name in MODELS]


def passing(name: str, precision: Precision) -> Row:
    """The time of a pass in a worker's layout over that of the same network as published, of torch's layers."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    x, y = torch.rand(BATCH, *SHAPE, dtype=dtype), torch.randint(0, CLASSES, (BATCH,))
    quick, plain = pair(MODELS[name], dtype)
    names = f"{name}, {precision}", "as published, torch's layers"
    return compare(names, partial(attack, quick, x, y), partial(climb, plain, x, y), CPU, PAIRS)


def learning(name: str) -> Row:
    """The same for a gradient of the loss of `Margin`, which has gradients for the input in it."""
    x, y = torch.rand(BATCH, *SHAPE), torch.randint(0, CLASSES, (BATCH,))
    quick, plain = pair(MODELS[name], torch.float32)
    names = f"{name}, learning by margin", "as published, torch's layers"
    return compare(names, partial(learn, quick, x, y), partial(learn, plain, x, y), CPU, PAIRS)


def pair(kind: Model, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The network as workers have it, and as published."""
    quick, other = (runtime.arranged(kind.build(SHAPE, CLASSES).to(dtype)).eval() for _ in range(2))
    return quick, as_published(other)


def as_published(network: nn.Module) -> nn.Module:
    """The layers of the network as torch's own, with each max-pooling behind its ReLU."""
    layers = list(network.children())
    for place, layer in enumerate(layers):
        if type(layer) is PickingMaxPool2d and type(layers[place + 1]) is nn.ReLU:
            layers[place : place + 2] = layers[place + 1], layer
    for layer in layers:
        layer.__class__ = PLAIN.get(type(layer), type(layer))
    return nn.Sequential(*layers)


def attack(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Some gradients for the images, as attackers take them."""
    with folded(model):
        climb(model, x, y)


def climb(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Some gradients for the images."""
    with frozen(model):
        for _ in range(PASSES):
            here = x.clone().requires_grad_(True)
            torch.autograd.grad(functional.cross_entropy(model(here).float(), y), here)


def learn(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """A gradient for the weights."""
    loss = Margin().loss(model, x, x, y, rng=torch.Generator())
    torch.autograd.grad(loss, list(model.parameters()))
