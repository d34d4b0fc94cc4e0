"""Layers as Ray tasks: the bits of a trainer that does them itself, whatever becomes of the tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest
import ray
import torch
from torch import Tensor

from algorithms.control import decoupling
from algorithms.control.constraints import Constraint, SolverError
from algorithms.control.constraints.convolution import Convolution
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.decoupling import Problem
from algorithms.control.maximisation import Layer, Terms
from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from orchestrator.backend import Inline
from orchestrator.cluster import Remote
from orchestrator.listener import Silent
from orchestrator.recipe import Workers
from tests.training import bits, changed
from workers.maximizer import LayerTasks

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

LAYERS = {"0": Layer(constraint=Convolution(size=(8, 8), iterations=2)), "*.bias": Layer(alpha=0.0)}
UPDATE = HamiltonianMaximization(learning_rate=0.3, momentum=0.5, layers=LAYERS)
WORK = changed(update=UPDATE)


def problems() -> list[Problem]:
    rng = torch.Generator().manual_seed(0)
    terms = Terms(name="w", alpha=0.01, rate=0.1, constraint=SpectralNorm(), momentum=0.5)
    memory = {"seen": torch.tensor(3), "product": torch.ones(6, 9)}
    return [Problem(terms, *torch.randn((2, 6, 9), generator=rng), memory) for _ in range(3)]


def test_a_run_gives_the_same_bits_with_layers_as_tasks(tmp_path: Path) -> None:
    expected = bits(Inline(WORK), tmp_path / "here", WORK)
    workers = Workers(attackers=1, attacker_cpus=0.5, trainer_cpus=0.5, maximizers=2)
    backend = Remote(workers, WORK, Silent())
    try:
        assert bits(backend, tmp_path / "tasks", WORK) == expected
    finally:
        backend.close()


def test_tasks_solve_problems_to_the_bit() -> None:
    ours, theirs = LayerTasks(1, 60.0)(problems()), decoupling.here(problems())
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.theta, other.theta)
        assert one.memory.keys() == other.memory.keys()
        assert all(torch.equal(one.memory[key], value) for key, value in other.memory.items())


@final
@dataclass(frozen=True, kw_only=True)
class Lethal(Constraint):
    """Ends the process that projects, unless it is the test's own; or raises."""

    home: int
    raises: bool = False

    @property
    def limit(self) -> float:
        return 1.0

    def measure(self, theta: Tensor) -> float:
        return 0.0

    def project(self, theta: Tensor) -> Tensor:

        if self.raises:
            raise SolverError("no convergence")
        if os.getpid() != self.home:
            os._exit(1)
        return theta

    def closed_form(self, theta: Tensor) -> Tensor:
        return theta * 0.5


def test_a_task_that_is_lost_is_done_here() -> None:

    whole = problems()[0]
    lethal = whole._replace(terms=Terms(name="w", alpha=0.0, rate=0.1, constraint=Lethal(home=os.getpid())))
    (found,) = LayerTasks(1, 60.0)([lethal])
    assert torch.equal(found.theta, decoupling.here([lethal])[0].theta)


def test_notes_and_errors_of_a_task_come_back() -> None:
    noted = problems()[0]._replace(
        terms=Terms(name="w", alpha=0.0, rate=0.1, constraint=Lethal(home=0, raises=True)), memory={}
    )
    (found,) = LayerTasks(1, 60.0)([noted])
    assert found.note == "w: no convergence; took the closed form"
    assert int(found.memory["fallbacks"]) == 1
    wrong = noted._replace(product=torch.full((6, 9), torch.nan))
    with pytest.raises(FloatingPointError, match=r"^w: the product of states and co-states is NaN"):
        LayerTasks(1, 60.0)([wrong])


def test_a_task_that_does_not_come_back_in_time_is_done_here() -> None:
    blocked = ray.remote(num_cpus=8)(lambda: __import__("time").sleep(20)).remote()
    try:
        found = LayerTasks(1, 0.2)(problems())
        assert torch.equal(found[0].theta, decoupling.here(problems())[0].theta)
    finally:
        ray.cancel(blocked, force=True)
