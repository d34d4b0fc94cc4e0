"""The update of optimal control: projections and solvers by size, tasks and one process, its share of a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from algorithms.control import clipping, decoupling, sdp
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.decoupling import Problem
from algorithms.control.maximisation import Terms
from algorithms.models import Model
from algorithms.models.mlp import Mlp
from algorithms.models.wong_mnist import WongMnist
from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from algorithms.updates.sgd import SGD
from benchmarks.measuring import CPU, WALL, Row, compare
from orchestrator.cluster import connected
from orchestrator.listener import Silent
from orchestrator.recipe import Workers
from workers.maximizer import LayerTasks

SIZES: dict[sdp.Solver, tuple[int, ...]] = {"clarabel": (4, 8, 16, 24), "scs": (4, 8, 16, 32, 64)}
BATCH = 256


def matrix(*shape: int, norm: float = 0.0) -> Tensor:
    """A random matrix; with a norm of that number, so that at 1.05 few of its singular values exceed 1."""
    theta = torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))
    return theta * (norm / float(clipping.norm(theta))) if norm else theta


def solvers() -> list[Row]:
    """The semidefinite program over clipping: how many times as long for the same point."""
    rows = []
    for solver, sizes in SIZES.items():
        for n in sizes:
            theta = matrix(n, n).double()
            problem = sdp.Hamiltonian(2 * theta, theta, 1.0, 0.0)
            program, cut = partial(sdp.solve, problem, 1.0, solver), partial(clipping.clip, theta, 1.0)
            rows.append(compare((f"{solver}, {n}x{n}", "clipping"), program, cut, CPU, 3))
    return rows


def projections() -> list[Row]:
    """Clipping over one decomposition of the same weight in the same precision."""
    rows = []
    for shape in ((128, 784), (512, 512), (512, 4608)):
        for what, theta in (
            ("most values above the bound", matrix(*shape)),
            ("few values above", matrix(*shape, norm=1.05)),
            ("none above", matrix(*shape, norm=0.99)),
        ):
            size = "x".join(map(str, shape))
            decomposition = partial(torch.linalg.svd, theta, full_matrices=False)
            names = (f"clipping {size}, {what}", "torch.linalg.svd")
            rows.append(compare(names, partial(clipping.clip, theta, 1.0), decomposition, CPU, 5))
    return rows


def steps(model: Model, update: SGD | HamiltonianMaximization) -> Callable[[], None]:
    """A step of training on a fixed batch: passes and update."""
    network = model.build((1, 28, 28), 10)
    x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    state = update.start(parameters)

    def step() -> None:
        nonlocal state
        loss = functional.cross_entropy(network(x), y)
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(network.parameters())), strict=True))
        moved, state = update.step(parameters, gradients, state)
        torch._foreach_copy_(list(parameters.values()), list(moved.values()))

    return step


def shares() -> list[Row]:
    """A step with the constrained update over one with SGD: what is above 1 is the update's price."""
    rows = []
    for name, model in (("mlp 128-128", Mlp(hidden=(128, 128))), ("wong_mnist", WongMnist())):
        ours, theirs = (
            steps(model, update)
            for update in (HamiltonianMaximization(learning_rate=0.5, momentum=0.9), SGD(learning_rate=0.05))
        )
        names = (f"{name}, batch {BATCH}: a step of MSA", "a step of SGD")
        rows.append(compare(names, ours, theirs, CPU, 15))
    return rows


def layers(count: int = 8) -> list[Problem]:
    """Layers of 512x512, each with a norm above the bound."""
    terms = Terms(name="w", alpha=0.0, rate=0.1, constraint=SpectralNorm())
    return [Problem(terms, theta := matrix(512, 512), torch.zeros_like(theta), {}) for _ in range(count)]


def tasks() -> list[Row]:
    """Layers as Ray tasks on one CPU and on two, over this process alone; by the clock."""
    rows, problems = [], layers()
    for cpus in (1, 2):
        with connected(Workers(attackers=1, attacker_cpus=0, trainer_cpus=0, maximizers=cpus), Silent()):
            solve = LayerTasks(1, 600.0)
            solve(problems)  # processes start
            time.sleep(1)
            names = (f"8 layers of 512x512 as tasks on {cpus} CPUs", "in one process")
            rows.append(compare(names, partial(solve, problems), partial(decoupling.here, problems), WALL, 5))
    return rows


def run() -> list[Row]:
    """All of it: some minutes."""
    return [*projections(), *shares(), *solvers(), *tasks()]
