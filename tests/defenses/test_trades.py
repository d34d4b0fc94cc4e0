"""TRADES: its loss by hand and by differences, its attack against a loop written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from algorithms.defenses.trades import Trades
from algorithms.search import Record
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels
from tests.attacks.records import norms_of
from tests.defenses.differences import assert_slopes, loss_by_hand
from tests.networks import Counting, classes_of, images, small


def perturbed(defense: Trades, x: Images, y: Labels) -> Record:
    return defense.perturb(small(dtype=torch.float64), x, y, rng=torch.Generator().manual_seed(3))


def test_the_loss_by_hand() -> None:
    """For two mirrored predictions of two classes KL(p || q) is (2 p - 1) log(p / (1 - p)), here tanh(1/2)."""
    clean = math.log(1 + math.exp(-1))
    assert loss_by_hand(Trades(beta=6.0)) == pytest.approx(clean + 6 * math.tanh(0.5), abs=1e-12)
    assert loss_by_hand(Trades(beta=0.0)) == pytest.approx(clean, abs=1e-12)


def test_gradients_flow_through_both_predictions() -> None:
    assert_slopes(Trades(beta=3.0))


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
def test_the_attack_is_the_loop_of_the_paper(norm: Any, eps: float) -> None:
    model, x = small(dtype=torch.float64), images(dtype=torch.float64)
    record = perturbed(Trades(norm=norm, eps=eps, step_size=eps / 3, steps=4, spread=0.01), x, classes_of(model, x))
    noise = Streams.draw(torch.Generator().manual_seed(3), len(x)).fork(0).normal((1, 6, 6), dtype=torch.float64)
    point = (x + 0.01 * noise).clamp(0, 1)
    target = model(x).softmax(1).detach()
    for _ in range(4):
        point = point.detach().requires_grad_()
        functional.kl_div(model(point).log_softmax(1), target, reduction="sum").backward()
        slope = point.grad
        assert slope is not None
        step = slope.sign() if norm == "linf" else slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = point.detach() + eps / 3 * step - x
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = delta.clamp(-eps, eps) if norm == "linf" else delta * (eps / length).clamp(max=1)
        point = (x + delta).clamp(0, 1)
    torch.testing.assert_close(record.x_adv, point, rtol=0, atol=1e-7)
    assert (norms_of(record.x_adv - x, norm) <= eps + 1e-9).all()


def test_the_attack_knows_no_labels() -> None:
    x = images(dtype=torch.float64)
    zeros = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(perturbed(Trades(), x, zeros).x_adv, perturbed(Trades(), x, zeros + 3).x_adv)


def test_it_changes_the_prediction_more_than_noise_does() -> None:
    model, x = small(dtype=torch.float64), images(40, dtype=torch.float64)
    x_adv = perturbed(Trades(eps=0.1, step_size=0.025), x, classes_of(model, x)).x_adv
    noise = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sign()
    with torch.no_grad():
        clean, found, random = (model(each).softmax(1) for each in (x, x_adv, (x + noise).clamp(0, 1)))
        assert functional.kl_div(found.log(), clean, reduction="batchmean") > 5 * functional.kl_div(
            random.log(), clean, reduction="batchmean"
        )


def test_it_costs_one_forward_pass_more_than_its_steps() -> None:
    model, x = Counting(small(dtype=torch.float64)), images(dtype=torch.float64)
    record = Trades(steps=4).perturb(model, x, torch.zeros(6, dtype=torch.int64), rng=torch.Generator())
    assert (record.forwards.tolist(), record.backwards.tolist()) == ([5] * 6, [4] * 6)
    assert (model.forwards, model.backwards) == (30, 24)


@pytest.mark.parametrize(
    ("field", "value"), [("beta", -1.0), ("eps", 2.0), ("step_size", -0.1), ("steps", 0), ("spread", -1.0)]
)
def test_numbers_that_make_no_sense(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        Trades(**{field: value})
