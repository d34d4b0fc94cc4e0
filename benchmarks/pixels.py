"""What the quick gradient of a first convolution saves of an attack's pass, by network and precision."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.convolution import PixelConv2d
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.models.lenet5 import LeNet5
from algorithms.models.madry_cnn import MadryCnn
from algorithms.models.wong_mnist import WongMnist
from algorithms.modes import frozen
from benchmarks.measuring import CPU, Row, compare
from workers import runtime
from workers.messages import Precision

PAIRS, PASSES, BATCH = 5, 3, 64
SHAPE = (1, 28, 28)
MODELS: dict[str, Model] = {"lenet5": LeNet5(), "wong_mnist": WongMnist(), "cnn4": Cnn4(), "madry_cnn": MadryCnn()}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def run() -> list[Row]:
    """A row a network and a precision."""
    return [ratio(name, precision) for name in MODELS for precision in PRECISIONS]


def ratio(name: str, precision: Precision) -> Row:
    """The time of a pass in a worker's layout over that of the same without `PixelConv2d`."""
    kind, dtype = MODELS[name], torch.bfloat16 if precision == "bfloat16" else torch.float32
    x, y = torch.rand(BATCH, *SHAPE, dtype=dtype), torch.randint(0, 10, (BATCH,))
    plain, quick = (runtime.arranged(kind.build(SHAPE, 10).to(dtype)).eval() for _ in range(2))
    for layer in plain.modules():
        if type(layer) is PixelConv2d:
            layer.__class__ = nn.Conv2d  # type: ignore[assignment] # back again
    names = f"{name}, {precision}", "torch's own convolution"
    return compare(names, partial(climb, quick, x, y), partial(climb, plain, x, y), CPU, PAIRS)


def climb(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Some gradients for the images."""
    with frozen(model):
        for _ in range(PASSES):
            here = x.clone().requires_grad_(True)
            torch.autograd.grad(functional.cross_entropy(model(here).float(), y), here)
