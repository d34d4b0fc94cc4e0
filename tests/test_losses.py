"""Losses, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from algorithms import losses

#          logits                      y  margin          dlr
BY_HAND = [
    ([4.0, 1.0, 0.0, -2.0], 0, 1 - 4, (1 - 4) / (4 - 0)),
    ([4.0, 1.0, 0.0, -2.0], 1, 4 - 1, (4 - 1) / (4 - 0)),
    ([4.0, 1.0, 0.0, -2.0], 3, 4 + 2, (4 + 2) / (4 - 0)),
    ([-1.0, -5.0, -3.0, -9.0], 0, -3 + 1, (-3 + 1) / (-1 + 5)),  # a masked zero would win over all other logits here
    ([-5.0, -1.0, -3.0, -9.0], 0, -1 + 5, (-1 + 5) / (-1 + 5)),
    ([2.0, 2.0, 0.0, 1.0], 0, 0.0, 0.0),  # a tie
    ([2.0, 2.0, 0.0, 1.0], 3, 2 - 1, (2 - 1) / (2 - 1)),
]


def rows(logits: list[float], y: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([logits], dtype=torch.float64), torch.tensor([y])


@pytest.mark.parametrize(("logits", "y", "margin", "dlr"), BY_HAND)
def test_margin_and_dlr_by_hand(logits: list[float], y: int, margin: float, dlr: float) -> None:
    assert losses.margin(*rows(logits, y)).item() == pytest.approx(margin)
    assert losses.dlr(*rows(logits, y)).item() == pytest.approx(dlr)


def test_two_classes() -> None:
    for y, sign in ((0, -1), (1, 1)):
        assert losses.margin(*rows([3.0, -2.0], y)).item() == sign * 5
        assert losses.dlr(*rows([3.0, -2.0], y)).item() == pytest.approx(
            sign
        )  # there is no third logit: top against last


def test_dlr_does_not_change_when_logits_are_scaled_or_shifted() -> None:
    logits, y = rows([4.0, 1.0, 0.0, -2.0], 0)
    for changed in (logits * 1e3, logits * 1e-3, logits + 100):
        torch.testing.assert_close(losses.dlr(changed, y), losses.dlr(logits, y), rtol=1e-6, atol=0)


def test_dlr_of_equal_logits_is_finite() -> None:
    assert losses.dlr(*rows([1.0, 1.0, 1.0], 2)).item() == 0


def test_cross_entropy_by_hand() -> None:
    logits, y = rows([0.0, math.log(3), -math.inf], 0)
    assert losses.cross_entropy(logits, y).item() == pytest.approx(math.log(4))
    assert losses.cross_entropy(*rows([1000.0, 0.0], 1)).item() == pytest.approx(1000)  # no overflow


def test_log_odds_point_as_the_cross_entropy_does_and_do_not_vanish() -> None:
    assert losses.log_odds(*rows([math.log(6), math.log(1), math.log(2)], 0)).item() == pytest.approx(math.log(3 / 6))
    for gap in (1.0, 200.0):  # at 200 the cross-entropy's own gradient is zero in float32
        logits = torch.tensor([[gap, 0.5, 0.0, -1.0]], requires_grad=True)
        (slope,) = torch.autograd.grad(losses.log_odds(logits, torch.tensor([0])).sum(), logits)
        expected = torch.softmax(torch.tensor([0.5, 0.0, -1.0]), 0)
        torch.testing.assert_close(slope[0], torch.cat([torch.tensor([-1.0]), expected]))


@pytest.mark.parametrize("name", ["cross_entropy", "margin", "dlr", "log_odds"])
def test_a_target_turns_the_loss_round_and_rows_keep_apart(name: losses.Loss) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3, 0])
    value = losses.loss(name, logits, y)
    assert value.shape == (5,)
    assert torch.equal(losses.loss(name, logits, y, targeted=True), -value)
    for row in range(5):
        torch.testing.assert_close(losses.loss(name, logits[row : row + 1], y[row : row + 1])[0], value[row])


def test_the_margins_gradient_is_of_the_two_logits_that_it_compares() -> None:
    logits, y = rows([4.0, 1.0, 0.0, -2.0], 0)
    logits.requires_grad_()
    losses.margin(logits, y).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-1.0, 1.0, 0.0, 0.0]]


def test_who_is_fooled() -> None:
    logits = torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    zeros = torch.zeros(3, dtype=torch.int64)
    assert losses.fooled(logits, zeros).tolist() == [False, True, False]  # a tie fools nobody
    assert losses.fooled(logits, zeros, targeted=True).tolist() == [True, False, False]  # and reaches no target
