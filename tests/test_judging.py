"""Points that a rule evaluates before it knows whether they are candidates, and margins that it asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.losses import Loss
from algorithms.search import Problem, Record, search
from tests.networks import Affine
from tests.rules import State


@dataclass(frozen=True)
class Choosy(Attack):
    """Looks at two points and has only the first of them judged, where the clean pixel is above 0.2."""

    norm: Norm = "linf"
    targeted: bool = False
    loss: Loss = "margin"
    steps: int = 1
    confidence: float = 0.0

    def start(self, problem: Problem) -> State:
        return State(problem.x)

    def step(self, problem: Problem, state: State, k: int) -> State:
        at = problem.gradient_of(state.x_adv + 0.5, lambda logits: logits[:, 1], judged=False)
        problem.predict(torch.ones_like(problem.x), judged=False)
        problem.judge(state.x_adv + 0.5, at.logits, problem.x[:, 0, 0, 0] > 0.2)
        return state


def attacked(pixels: list[float], confidence: float = 0.0) -> Record:
    """By the second logit's excess over the first, 10 (v - 0.5); all pixels v are of class 0."""
    model = Affine(torch.tensor([[0.0], [10.0]]), torch.tensor([5.0, 0.0]))
    x: Tensor = torch.tensor(pixels).view(-1, 1, 1, 1)
    y = torch.zeros(len(x), dtype=torch.int64)
    return search(Choosy(confidence=confidence), model, x, y, rng=torch.Generator())


def test_only_points_handed_in_are_judged() -> None:
    record = attacked([0.1, 0.3, 0.15, 0.4])
    assert record.success.tolist() == [False, True, False, True]
    torch.testing.assert_close(record.x_adv.flatten(), torch.tensor([0.1, 0.8, 0.15, 0.9]))


def test_each_look_is_counted_once_whether_judged_or_not() -> None:
    record = attacked([0.1, 0.3])
    assert record.forwards.tolist() == [3, 2]  # the row that is fooled leaves before the last look
    assert record.backwards.tolist() == [1, 1]


def test_a_margin_that_is_asked_for_must_be_exceeded() -> None:
    assert attacked([0.25, 0.3, 0.4], confidence=2.9).success.tolist() == [False, True, True]  # margins 2.5, 3, 4
    assert attacked([0.25, 0.3, 0.4], confidence=3.5).success.tolist() == [False, False, True]
