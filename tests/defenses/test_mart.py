"""MART: its loss by hand and by differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from algorithms.attacks.pgd import PGD
from algorithms.defenses.mart import Mart, boosted_cross_entropy
from algorithms.search import search
from tests.defenses.differences import assert_slopes, loss_by_hand
from tests.networks import classes_of, images, small


def test_the_loss_by_hand() -> None:
    """With two classes 1 - p(rival) is p(y), so that the boosted cross-entropy is twice the plain one."""
    boosted = 2 * math.log(1 + math.exp(1))
    unsure = 1 / (1 + math.exp(1))  # of the clean image, about its class
    assert loss_by_hand(Mart(weight=5.0)) == pytest.approx(boosted + 5 * math.tanh(0.5) * unsure, abs=1e-12)
    assert loss_by_hand(Mart(weight=0.0)) == pytest.approx(boosted, abs=1e-12)


def test_the_boosted_cross_entropy_by_hand() -> None:
    """Probabilities 1/8, 2/8, 5/8: for class 0 it is log 8 + log(8/3), for class 2 it is log(8/5) + log(8/6)."""
    logits = torch.tensor([[1.0, 2.0, 5.0]] * 2, dtype=torch.float64).log() + 7
    expected = [math.log(8) + math.log(8 / 3), math.log(8 / 5) + math.log(8 / 6)]
    assert boosted_cross_entropy(logits, torch.tensor([0, 2])).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_certain_mistake_costs_a_finite_amount() -> None:
    logits = torch.tensor([[0.0, 200.0, -200.0]], requires_grad=True)
    value = boosted_cross_entropy(logits, torch.tensor([0]))
    assert value.item() == pytest.approx(400)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(slope).all()


def test_gradients_flow_through_all_terms() -> None:
    assert_slopes(Mart(weight=3.0))


def test_it_learns_from_where_the_attack_is_told_to_end() -> None:
    model, x = small(dtype=torch.float64), images(dtype=torch.float64)
    y, attack = classes_of(model, x), PGD(eps=0.1, step_size=0.03, steps=4)
    found = Mart(attack=attack).perturb(model, x, y, rng=torch.Generator().manual_seed(1))
    expected = search(attack, model, x, y, rng=torch.Generator().manual_seed(1), policy="last")
    assert torch.equal(found.x_adv, expected.x_adv)


def test_a_negative_weight_is_refused() -> None:
    wrong: Any = {"weight": -1.0}
    with pytest.raises(ValueError, match=r"^weight: "):
        Mart(**wrong)
