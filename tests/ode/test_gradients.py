"""Gradients against differences: through fixed steps, through torchdiffeq's adaptive ones, through all of a solver."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algorithms.ode.skew import Skew
from algorithms.ode.solver import Method, Solver
from tests.ode.systems import REFERENCE, SMOOTH, block, error_of_gradient, random

X = random(2, 3, 6, 6, seed=5).sigmoid()
ADAPTIVE: list[tuple[Method, float]] = [("dopri5", 0.1), ("dopri5", 0.01), ("bosh3", 0.01), ("adaptive_heun", 0.01)]


@pytest.mark.parametrize("rule", [SMOOTH, REFERENCE], ids=["theorem", "reference"])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_fixed_steps_have_the_gradient_of_their_values(method: Method, rule: Skew) -> None:
    assert error_of_gradient(block(rule, Solver(method=method)), X) < 1e-7


@pytest.mark.parametrize(("method", "tolerance"), ADAPTIVE)
def test_the_exact_gradient_is_that_of_the_values(method: Method, tolerance: float) -> None:
    solver = Solver(method=method, tolerance=tolerance, gradient="exact")
    assert error_of_gradient(block(SMOOTH, solver, gain=6), X) < 1e-6


@pytest.mark.parametrize(("method", "tolerance"), ADAPTIVE)
def test_the_usual_gradient_of_adaptive_steps_is_not(method: Method, tolerance: float) -> None:
    assert error_of_gradient(block(SMOOTH, Solver(method=method, tolerance=tolerance), gain=6), X) > 1e-3


def test_the_adjoints_gradient_nears_the_direct_one_as_steps_shrink() -> None:
    errors = [error_of_gradient(block(SMOOTH, Solver(steps=steps, gradient="adjoint")), X, 3) for steps in (1, 8)]
    assert errors[0] > 1e-4  # of another discretisation
    assert errors[1] < 0.01 * errors[0]


@pytest.mark.parametrize("gradient", ["direct", "adjoint", "exact"])
def test_gradients_reach_the_kernel(gradient: Any) -> None:
    made = block(SMOOTH, Solver(method="dopri5", tolerance=1e-8, gradient=gradient))
    made(X).square().sum().backward()
    given = made.flow.field.kernel.weight.grad.clone()
    made = block(SMOOTH, Solver(steps=20))
    made(X).square().sum().backward()
    torch.testing.assert_close(given, made.flow.field.kernel.weight.grad, rtol=1e-3, atol=1e-3)
