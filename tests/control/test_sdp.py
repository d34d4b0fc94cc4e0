"""The semidefinite program of the paper against clipping, and what happens where its solver fails."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from algorithms.control import clipping, sdp
from algorithms.control.constraints import SolverError
from algorithms.control.constraints.semidefinite import Semidefinite
from algorithms.control.maximisation import Terms, maximise


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("shape", [(2, 2), (4, 4), (3, 7), (8, 8), (12, 5), (16, 16), (32, 32)], ids=str)
def test_the_program_and_clipping_agree(shape: tuple[int, int], solver: sdp.Solver) -> None:
    rng = torch.Generator().manual_seed(sum(shape))
    product, previous = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    objective = sdp.Hamiltonian(4 * product, previous / 4, alpha=0.1, beta=0.6)
    found = sdp.solve(objective, 1.0, solver)
    clipped = clipping.clip(objective.maximiser(), 1.0)
    assert float((clipped - found).norm() / clipped.norm()) < 1e-4
    assert objective.value(clipped) >= objective.value(found) - 1e-6 * abs(objective.value(found))
    assert torch.linalg.svdvals(clipped)[0] <= 1 + 1e-7


def test_a_program_that_is_too_large_is_refused_before_a_solver_sees_it() -> None:
    with pytest.raises(SolverError, match=r"a matrix of 40x50 is too large for clarabel \(largest = 64\)"):
        Semidefinite().project(torch.ones(40, 50))


@pytest.mark.parametrize(
    ("options", "note"), [({"max_iter": 1}, "ended a 4x4 program as|failed on a 4x4 program"), (None, "too large")]
)
def test_a_failure_falls_back_to_the_closed_form_and_is_noted(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, float] | None, note: str
) -> None:
    if options:
        monkeypatch.setitem(sdp.OPTIONS, "clarabel", options)
    constraint = Semidefinite(largest=64 if options else 4)
    theta = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    terms = Terms(name="fc.weight", alpha=0.0, rate=0.0, constraint=constraint)
    once = maximise(terms, theta, torch.zeros(4, 4), {})
    assert torch.equal(once.theta, clipping.clip(theta, 1.0))
    assert once.note.startswith("fc.weight: ")
    assert once.note.endswith("took the closed form")
    assert any(part in once.note for part in note.split("|"))
    again = maximise(terms, theta, torch.zeros(4, 4), once.memory)
    assert int(again.memory["fallbacks"]) == 2


def test_nothing_imports_cvxpy_before_a_program_is_solved() -> None:
    code = (
        "import sys; from algorithms import plugins; from algorithms.control.constraints import Constraint\n"
        "[plugins.find(Constraint, name)() for name in plugins.names(Constraint)]\n"
        "import algorithms.updates.hamiltonian_maximization\n"
        "assert 'cvxpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
