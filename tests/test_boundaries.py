"""The linearised boundaries, on models whose gradients are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algorithms import boundaries
from algorithms.attacks.pgd import PGD
from algorithms.search import Ledger, Problem
from algorithms.streams import Streams


class Affine(nn.Module):
    """Logits W x + b; counts its forward passes."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(weight), nn.Buffer(bias)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1) @ self.weight.T + self.bias


def problem_of(model: nn.Module, x: Tensor, y: Tensor, attack: PGD) -> Problem:
    streams = Streams.draw(torch.Generator().manual_seed(0), len(x))
    return Problem(model, Ledger(attack, x, y, "first success"), torch.arange(len(x)), streams, None)


def affine(classes: int = 4, rows: int = 5) -> tuple[Affine, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    model = Affine(
        torch.randn(classes, 6, generator=rng, dtype=torch.float64), torch.randn(classes, generator=rng).double()
    )
    x = torch.rand(rows, 1, 2, 3, generator=rng, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def test_jacobian_gives_every_gradient_from_one_forward_pass() -> None:
    model, x, y = affine()
    problem = problem_of(model, x, y, PGD())
    model.calls = 0
    at = problem.jacobian(x, lambda logits: logits)
    assert model.calls == 1
    assert torch.allclose(at.gradients.flatten(2), model.weight.expand(5, 4, 6))
    assert torch.equal(at.values, at.logits)
    assert problem.ledger.forwards.tolist() == [1] * 5
    assert problem.ledger.backwards.tolist() == [4] * 5


def test_jacobian_judges_the_point() -> None:
    model, x, y = affine()
    problem = problem_of(model, x, (y + 1) % 4, PGD())
    problem.jacobian(x, lambda logits: logits[:, :2])
    assert problem.best.success.all()
    assert torch.equal(problem.best.x_adv, x)


def test_gaps_are_of_the_rivals_in_order() -> None:
    logits, y = torch.tensor([[3.0, -1.0, 2.0, 5.0]]), torch.tensor([0])
    assert boundaries.gaps(logits, y).tolist() == [[2.0, -1.0, -4.0]]
    assert boundaries.gaps(logits, y, rivals=2).tolist() == [[2.0, -1.0]]
    assert boundaries.gaps(logits, y, targeted=True).tolist() == [[-2.0]]
    assert boundaries.gaps(logits[:, :2], y, rivals=9).tolist() == [[-4.0]]


def test_nearest_is_the_plane_at_the_least_distance() -> None:
    model, x, y = affine()
    for norm, order in (("linf", 1), ("l2", 2), ("l1", torch.inf)):
        planes = boundaries.nearest(problem_of(model, x, y, PGD(norm=norm)), x)
        for row in range(len(x)):
            logits, own = planes.logits[row], int(y[row])
            rivals = [k for k in range(4) if k != own]
            distance = [
                float((logits[own] - logits[k]) / torch.linalg.vector_norm(model.weight[k] - model.weight[own], order))
                for k in rivals
            ]
            best = rivals[distance.index(min(distance))]
            assert torch.allclose(planes.normal[row].flatten(), model.weight[best] - model.weight[own])
            assert torch.allclose(planes.gap[row], logits[best] - logits[own])


def test_a_rival_that_no_pixel_moves_is_never_nearest() -> None:
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    model = Affine(weight, torch.tensor([0.0, -0.1, 0.0]))
    x = torch.tensor([[[[0.9, 0.5]]]])
    planes = boundaries.nearest(problem_of(model, x, torch.tensor([0]), PGD(norm="l2")), x)
    assert planes.normal.flatten().tolist() == [-2.0, 0.0]
