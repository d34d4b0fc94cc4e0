"""The semidefinite program of Theorem 4 as the paper writes it, solved by cvxpy. For comparison: clipping is exact.

max <P, X> - alpha |X|^2 - beta |X - X'|^2  subject to  [[I, X / c], [X^T / c, I]] positive semidefinite.
cvxpy is imported when a program is solved, not before.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from algorithms.control.constraints import SolverError

Solver = Literal["clarabel", "scs"]
OPTIONS: dict[Solver, dict[str, float]] = {"clarabel": {}, "scs": {"eps_abs": 1e-8, "eps_rel": 1e-8}}


class Hamiltonian(NamedTuple):
    """What is maximised over a layer's matrix."""

    product: Tensor  # P, states times co-states
    previous: Tensor  # X'
    alpha: float
    beta: float

    def value(self, theta: Tensor) -> float:
        """The objective at `theta`."""
        gain = (self.product * theta).sum() - self.alpha * theta.square().sum()
        return float(gain - self.beta * (theta - self.previous).square().sum())

    def maximiser(self) -> Tensor:
        """Where the objective is largest if nothing constrains it."""
        return (self.product / 2 + self.beta * self.previous) / (self.alpha + self.beta)


def solve(objective: Hamiltonian, bound: float, solver: Solver) -> Tensor:
    """The maximiser under the semidefinite condition, as exact as the solver. Raises SolverError if it finds none."""
    cvxpy: Any = importlib.import_module("cvxpy")  # takes a second, and nothing else needs it

    weight = objective.alpha + objective.beta  # the objective is divided by it: solvers want numbers about 1
    product, previous = (_array(t) for t in (objective.product / weight, objective.previous))
    rows, columns = product.shape
    theta = cvxpy.Variable((rows, columns))
    gain = cvxpy.sum(cvxpy.multiply(product, theta)) - objective.alpha / weight * cvxpy.sum_squares(theta)
    gain -= objective.beta / weight * cvxpy.sum_squares(theta - previous)
    block = cvxpy.bmat([[np.eye(rows), theta / bound], [theta.T / bound, np.eye(columns)]])
    program = cvxpy.Problem(cvxpy.Maximize(gain), [block >> 0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an inaccurate solution, which is an error below
            program.solve(solver=solver.upper(), **OPTIONS[solver])
    except (cvxpy.error.SolverError, ArithmeticError) as error:
        raise SolverError(f"{solver} failed on a {rows}x{columns} program: {error}") from error
    if program.status != cvxpy.OPTIMAL:
        raise SolverError(f"{solver} ended a {rows}x{columns} program as {program.status!r}")
    return torch.as_tensor(theta.value, dtype=torch.float64).to(objective.product)


def _array(values: Tensor) -> Any:
    return values.detach().double().cpu().numpy()
