"""PGD-10 training of CIFAR-10's networks: images a second, and the share of what the device multiplies at best.

On the GPU where torch sees one, else on one core: the same loop in plain torch beside it, and with torchattacks' PGD in
it, where that is installed. A batch is one shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from algorithms.models import Model
from algorithms.models.cnn8 import Cnn8
from algorithms.models.resnet18 import ResNet18
from algorithms.models.wide_resnet import WideResNet
from algorithms.operations import operations
from benchmarks import rivals
from benchmarks.attack_floor import EPS, STEPS, bare_loop
from benchmarks.data import folder
from benchmarks.measuring import CPU, WALL, Row, paired, seconds_of
from benchmarks.training import against, fresh, our_steps, plain_loop, started, work_with
from orchestrator.backend import Inline
from workers.datasets.parquet import Parquet
from workers.messages import Precision, Work

Device = Literal["cpu", "cuda"]
DEVICE: Device = "cuda" if torch.cuda.is_available() else "cpu"
PAIRS = 3


class Size(NamedTuple):
    """A network, and the images of a batch by device."""

    model: Model
    batch: dict[Device, int]


NETWORKS = {
    "cnn8": Size(Cnn8(), {"cpu": 32, "cuda": 512}),
    "resnet18": Size(ResNet18(), {"cpu": 16, "cuda": 512}),
    "wide_resnet-34-10": Size(WideResNet(), {"cpu": 4, "cuda": 128}),
}
SIDES: dict[Device, tuple[int, ...]] = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}  # of matrices


def run() -> list[Row]:
    """For each network examples in either precision, and torchattacks' loop, over the plain loop in float32."""
    if not folder("cifar10"):
        return []
    best, found = peak(), list[Row]()
    for name in NETWORKS:
        with fresh() as plain, fresh() as other:
            found += rows(name, plain, other, best)
    return found


def rows(name: str, plain: Executor, other: Executor, best: float) -> list[Row]:
    """The rows of one network; two processes for other loops, and `best`: floating-point operations a second."""
    works = {precision: work_for(NETWORKS[name], precision) for precision in get_args(Precision)}
    work = works["float32"]
    cost = work.batch / 2 * operations(partial(plain_loop(dataclasses.replace(work, batch=2), bare_loop), 1))
    theirs = against(plain, work, 1, 1, clock)
    contenders = {f"{name}, examples in {precision}": ours(chosen) for precision, chosen in works.items()}
    if rivals.installed("torchattacks"):
        contenders[f"{name}, torchattacks' PGD"] = against(other, work, 1, 1, clock, their_loop)
    found = [paired((what, "a plain loop in float32"), seconds, theirs, PAIRS) for what, seconds in contenders.items()]
    return [dataclasses.replace(row, note=told(work.batch / row.seconds, cost / row.seconds / best)) for row in found]


def work_for(size: Size, precision: Precision) -> Work:
    """PGD-10 training of a network on CIFAR-10."""
    work = work_with(0, precision, Parquet(folder=folder("cifar10")))
    batch = size.batch[DEVICE]
    return dataclasses.replace(work, model=size.model, batch=batch, shard=batch, device=DEVICE)


def ours(work: Work) -> Callable[[], float]:
    """A step of this project's, as a work that says how many seconds count."""
    return partial(seconds_of, partial(our_steps, started(work, Inline(work)), 1), clock)


def their_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD as torchattacks has it."""
    return rivals.torchattacks("PGD", eps=EPS, alpha=EPS / 4, steps=STEPS)(model, x, y)


def told(images: float, share: float) -> str:
    """A row's note."""
    return f"{images:.3g} images a second, {share:.0%} of the best product in float32"


def peak() -> float:
    """Operations a second in the best product of matrices in float32, which on a GPU is TF32: so are convolutions."""
    usual = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    best = max(2 * side**3 / seconds_of(product(side), clock) for side in SIDES[DEVICE] for _ in range(10))
    torch.backends.cuda.matmul.allow_tf32 = usual
    return best


def product(side: int) -> Callable[[], object]:
    """A product of square matrices."""
    left, right = (torch.rand(side, side, device=DEVICE) for _ in range(2))
    return lambda: left @ right


def clock() -> float:
    """Seconds of this process, or by the clock once the GPU has done what it was given."""
    if DEVICE == "cpu":
        return CPU()
    torch.cuda.synchronize()
    return WALL()
