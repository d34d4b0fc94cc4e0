"""The remembered inverse Hessian against the dense recursion, and descents in the box against a convex solver."""

from __future__ import annotations

import cvxpy
import torch
from torch import Tensor

from algorithms import quasi_newton
from algorithms.tensors import per_row


def pairs(rows: int = 3, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """A Hessian a row, steps, and by how much these change the gradient."""
    rng = torch.Generator().manual_seed(4)
    root = torch.randn(rows, 6, 6, generator=rng, dtype=torch.float64)
    hessian = root @ root.mT + 0.1 * torch.eye(6).double()
    moves = torch.randn(rows, count, 1, 2, 3, generator=rng, dtype=torch.float64)
    return hessian, moves, (moves.flatten(2) @ hessian).view_as(moves)


def dense(moves: Tensor, turns: Tensor) -> Tensor:
    """The inverse Hessian of one row by BFGS's recursion, from the newest pair's scale."""
    inverse = torch.eye(moves.shape[1]).double() * (moves[-1] @ turns[-1]) / (turns[-1] @ turns[-1])
    for move, turn in zip(moves, turns, strict=True):
        left = torch.eye(len(move)).double() - torch.outer(move, turn) / (move @ turn)
        inverse = left @ inverse @ left.T + torch.outer(move, move) / (move @ turn)
    return inverse


def test_the_direction_is_that_of_the_dense_recursion() -> None:
    _, moves, turns = pairs()
    gradient = torch.randn(3, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    memory = quasi_newton.empty(gradient, 3)
    for k in range(4):  # the first of four is forgotten
        memory = quasi_newton.remember(memory, moves[:, k], turns[:, k], torch.ones(3, dtype=torch.bool))
    every = torch.ones_like(gradient)
    found = quasi_newton.direction(memory, gradient, every).flatten(1)
    for i in range(3):
        inverse = dense(moves[i, 1:].flatten(1), turns[i, 1:].flatten(1))
        torch.testing.assert_close(found[i], -inverse @ gradient[i].flatten())
    held = every.clone()
    held[:, 0, 0, 1] = 0
    rest = [0, 2, 3, 4, 5]
    found = quasi_newton.direction(memory, gradient, held).flatten(1)
    assert (found[:, 1] == 0).all()
    for i in range(3):
        inverse = dense(moves[i, 1:].flatten(1)[:, rest], turns[i, 1:].flatten(1)[:, rest])
        torch.testing.assert_close(found[i, rest], -inverse @ gradient[i].flatten()[rest])


def test_pairs_without_curvature_and_other_rows_are_not_remembered() -> None:
    _, moves, turns = pairs(count=1)
    memory = quasi_newton.empty(moves[:, 0], 2)
    turns[1] = -turns[1]
    after = quasi_newton.remember(memory, moves[:, 0], turns[:, 0], torch.tensor([True, True, False]))
    assert after.moves.flatten(1).any(1).tolist() == [True, False, False]
    gradient = 3 * torch.ones_like(moves[:, 0])
    down = quasi_newton.direction(after, gradient, torch.ones_like(gradient))[1]
    torch.testing.assert_close(down, torch.full_like(down, -(6**-0.5)))  # one unit long, down the gradient


def test_descents_in_the_box_reach_the_solvers_optimum() -> None:
    hessian, moves, _ = pairs()
    goal = 2 * moves[:, 0]

    def value(x: Tensor) -> tuple[Tensor, Tensor]:
        slope = ((x - goal).flatten(1).unsqueeze(1) @ hessian).view_as(x)
        return quasi_newton.inner(x - goal, slope) / 2, slope

    x = torch.full_like(goal, 0.5)
    memory = quasi_newton.empty(x, 10)
    for _ in range(60):
        at, slope = value(x)
        down = quasi_newton.direction(memory, slope, quasi_newton.free(x, slope))
        length, moved = torch.ones_like(at), x
        for _ in range(20):
            moved = (x + per_row(length, x) * down).clamp(0, 1)
            better = value(moved)[0] <= at + 1e-4 * quasi_newton.inner(slope, moved - x)
            length = torch.where(better, length, length / 2)
        memory = quasi_newton.remember(memory, moved - x, value(moved)[1] - slope, (moved != x).flatten(1).any(1))
        x = moved
    assert ((x == 0) | (x == 1)).any()
    for i in range(3):
        best = cvxpy.Variable(6)
        cost = cvxpy.quad_form(best - goal[i].flatten().numpy(), cvxpy.psd_wrap(hessian[i].numpy())) / 2
        optimum = cvxpy.Problem(cvxpy.Minimize(cost), [best >= 0, best <= 1]).solve(solver=cvxpy.CLARABEL)
        assert value(x)[0][i].item() <= optimum + 1e-6
