"""Small networks trained on the bundled digits: honest ones, and ones that mask their gradients in known ways."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.attacks.pgd import PGD
from algorithms.models import Model, Shape
from algorithms.models.cnn4 import Cnn4
from algorithms.ode import skew
from algorithms.ode.skew import Skew
from algorithms.ode.solver import Solver, solvers
from algorithms.tensors import Images, Labels
from orchestrator.evaluations.targets import Target
from orchestrator.folders import RunFolder
from orchestrator.recipe import Evaluation, Recipe, Workers
from tests.sketching import DIGITS, built
from workers.datasets import Part
from workers.datasets.digits import Digits

EPS = 0.15
TRAINING_ATTACK = PGD(eps=EPS, step_size=EPS / 3, steps=5)


@functools.cache
def digits(part: Part) -> tuple[Images, Labels]:
    """Images in [0, 1] and labels."""
    read = Digits().read(part)
    return torch.from_numpy(read.images.astype(np.float32) / 255), torch.from_numpy(read.labels.astype(np.int64))


def trained(network: nn.Module, attack: PGD | None, epochs: int, rate: float = 3e-3) -> nn.Module:
    """The network after Adam on the digits, or on what the attack makes of them."""
    x, y = digits("train")
    rng = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * (len(x) // 64))
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=rng).split(64)[: len(x) // 64]:
            seen = x[rows] if attack is None else attack(network, x[rows], y[rows], rng=rng)
            network.train()
            optimiser.zero_grad()
            functional.cross_entropy(network(seen), y[rows]).backward()
            optimiser.step()
            schedule.step()
    return network.eval().requires_grad_(False)


@functools.cache
def plain() -> nn.Module:
    return trained(built(Cnn4(width=8, hidden=32), DIGITS), None, 8)


@functools.cache
def robust() -> nn.Module:
    return trained(built(Cnn4(width=8, hidden=32), DIGITS), TRAINING_ATTACK, 10)


class Quantised(nn.Module):
    """Rounds pixels to a few levels: the gradient is zero wherever there is one."""

    def __init__(self, network: nn.Module, levels: int = 4) -> None:
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((x * self.levels).round() / self.levels)
        return logits


class Saturated(nn.Module):
    """Logits times 1000: the softmax knows no doubt, and its gradient is exactly zero."""

    def __init__(self, network: nn.Module, factor: float = 1000) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x) * self.factor
        return logits


class Noisy(nn.Module):
    """Adds random numbers to each image, each time."""

    def __init__(self, network: nn.Module, size: float = 0.2) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x + self.size * torch.randn_like(x))
        return logits


LOOSE = Solver(method="dopri5", tolerance=0.1)


class Stiff(nn.Module):
    """A skew-symmetric block with large weights, and a dense layer."""

    def __init__(self, classes: int, width: int = 6, gain: float = 6.0) -> None:
        super().__init__()
        self.block = skew.block(1, width, 1, Skew(activation="tanh"), solvers(LOOSE, None), "stiff")
        with torch.no_grad():
            self.block.flow.field.kernel.weight.mul_(gain)
        self.dense = nn.Linear(64 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.block(x).flatten(1))
        return logits


@functools.cache
def adaptive() -> nn.Module:
    """A network whose steps follow the error of a loose solver, which its gradient does not know."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Stiff(10)
    return trained(network, None, 3, 1e-2)


MASKS = {"": nn.Identity, "quantised": Quantised, "saturated": Saturated, "noisy": Noisy}


@final
@dataclass(frozen=True, kw_only=True)
class Masked(Model):
    """The small network of these tests behind a mask, or bare."""

    mask: str = ""

    def build(self, shape: Shape, classes: int) -> nn.Module:
        if self.mask == "stiff":
            return Stiff(classes)
        network = Cnn4(width=8, hidden=32).build(shape, classes)
        return MASKS[self.mask](network) if self.mask else network


def target(folder: Path, network: nn.Module, model: Model, **asked: Any) -> Target:
    """A run of that network, which attackers in this process look at."""
    evaluation = Evaluation(eps=EPS, **asked)
    recipe = Recipe(model=model, dataset=Digits(), evaluation=evaluation, workers=Workers(backend="inline"))
    return Target(RunFolder(folder), recipe, network.state_dict())
