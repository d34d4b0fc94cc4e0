"""The steps of adaptive solvers, before and during an attack."""

from __future__ import annotations

import itertools

import pytest
import torch

from algorithms.diagnostics.signs import Scene
from algorithms.diagnostics.solver_steps import SolverSteps
from algorithms.modes import frozen
from algorithms.ode.solver import Solver
from algorithms.ode.views import with_solver
from algorithms.streams import Streams
from tests.masked import EPS, adaptive, digits


def scene(solver: Solver, rows: int = 8) -> Scene:
    x, y = digits("test")
    streams = Streams.draw(torch.Generator().manual_seed(0), rows)
    return Scene(with_solver(adaptive(), solver), x[:rows], y[:rows], "linf", EPS, streams)


def test_steps_go_from_start_to_end_and_an_attack_moves_them() -> None:
    at = scene(Solver(method="dopri5", tolerance=0.1))
    with frozen(at.model):
        grids = SolverSteps(iterations=(0, 1, 10)).grids(at)
    assert [(grid.block, grid.iterations) for grid in grids] == [("stiff", 0), ("stiff", 1), ("stiff", 10)]
    for grid in grids:
        assert grid.times[0] == 0
        assert grid.times[-1] == 1
        assert all(a < b for a, b in itertools.pairwise(grid.times))
        assert grid.evaluations == 2 + 6 * (len(grid.times) - 1 + grid.rejected)  # dopri5
    assert grids[0].times[1] != grids[2].times[1]


def test_first_steps_shrink_with_the_fifth_root_of_the_tolerance() -> None:
    first = []
    for tolerance in (0.1, 0.01, 0.001):
        at = scene(Solver(method="dopri5", tolerance=tolerance))
        with frozen(at.model):
            (grid,) = SolverSteps(iterations=(0,)).grids(at)
        first.append(grid.times[1])
    ratios = [b / a for a, b in itertools.pairwise(first)]
    assert ratios == pytest.approx([10**-0.2] * 2, rel=0.2)


def test_fixed_steps_are_no_secret() -> None:
    at = scene(Solver(method="rk4", steps=2))
    with frozen(at.model):
        (grid,) = SolverSteps(iterations=(0,)).grids(at)
    assert grid.times == (0, 0.5, 1)
    with pytest.raises(ValueError, match="numbers of iterations"):
        SolverSteps(iterations=(-1,))
