"""One long step from a random start, where the gradient is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from algorithms.defenses.fast_adversarial import FastAdversarial
from tests.defenses.differences import assert_slopes, loss_by_hand
from tests.networks import Affine, Counting

UP = torch.stack([torch.zeros(400), torch.linspace(-1, 1, 400)]).double()  # logits; the second is climbed from class 0
MIDDLE = torch.full((3, 1, 20, 20), 0.5, dtype=torch.float64)
ZEROS = torch.zeros(3, dtype=torch.int64)


def test_the_loss_by_hand_and_by_differences() -> None:
    assert loss_by_hand(FastAdversarial()) == pytest.approx(math.log(1 + math.exp(1)), abs=1e-12)
    assert_slopes(FastAdversarial())


def test_the_step_is_a_radius_and_a_quarter_and_ends_in_the_ball() -> None:
    """A start u in [-eps, eps] ends at min(u + 1.25 eps, eps): with probability 5/8 at eps, never below eps / 4."""
    record = FastAdversarial(eps=0.2).perturb(Affine(UP), MIDDLE, ZEROS, rng=torch.Generator().manual_seed(0))
    along = ((record.x_adv - MIDDLE) * UP[1].sign().view(1, 1, 20, 20)).flatten()
    assert along.min() >= 0.05 - 1e-9
    assert along.max() <= 0.2 + 1e-9
    assert (along > 0.2 - 1e-9).double().mean().item() == pytest.approx(5 / 8, abs=0.05)
    whole = FastAdversarial(eps=0.2, stride=2.0).perturb(Affine(UP), MIDDLE, ZEROS, rng=torch.Generator())
    torch.testing.assert_close(whole.x_adv, MIDDLE + 0.2 * UP[1].sign().view(1, 1, 20, 20))


def test_in_l2_the_step_is_along_the_gradient() -> None:
    record = FastAdversarial(norm="l2", eps=0.4, stride=50.0).perturb(Affine(UP), MIDDLE, ZEROS, rng=torch.Generator())
    expected = 0.4 * UP[1] / UP[1].norm()
    torch.testing.assert_close((record.x_adv - MIDDLE).flatten(1), expected.expand(3, 400), rtol=0, atol=0.02)


def test_it_costs_one_gradient() -> None:
    model = Counting(Affine(UP))
    record = FastAdversarial().perturb(model, MIDDLE, ZEROS, rng=torch.Generator())
    assert (record.forwards.tolist(), record.backwards.tolist()) == ([1] * 3, [1] * 3)
    assert (model.forwards, model.backwards) == (3, 3)


@pytest.mark.parametrize(("field", "value"), [("eps", 2.0), ("stride", -1.0)])
def test_numbers_that_make_no_sense(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        FastAdversarial(**{field: value})
