"""WasserTrain: its mixed loss by hand, and radii that grow until an example is fooled."""

from __future__ import annotations

import pytest
import torch

from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.defenses.wasser_train import WasserTrain
from tests.networks import Affine, classes_of, images, small
from tests.transport.oracle import distances


def test_the_loss_is_equation_10() -> None:
    model = Affine(torch.tensor([[0.0], [2.0]]))  # logits (0, 2x)
    x, x_adv = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 1.0)
    y = torch.ones(1, dtype=torch.int64)
    clean, adversarial = (torch.log(1 + torch.exp(torch.tensor(-2 * pixel))).item() for pixel in (0.5, 1.0))
    for weight in (0.0, 0.3, 0.7, 1.0):
        defense = WasserTrain(adversarial_weight=weight)
        found = defense.loss(model, x, x_adv, y, rng=torch.Generator()).item()
        assert found == pytest.approx(weight * adversarial + (1 - weight) * clean, abs=1e-6)
    assert WasserTrain().adversarial_weight == 0.7


def test_the_default_attack_has_the_papers_radii() -> None:
    attack = WasserTrain().attack
    assert isinstance(attack, WasserAttack)
    assert (attack.eps, attack.growth, attack.every, attack.steps) == (0.1, 1.4, 5, 50)
    assert attack.encoding == "softmax"


def test_an_example_meets_larger_radii_until_it_fools() -> None:
    model, x = small(dtype=torch.float64), images(10, dtype=torch.float64)
    y = classes_of(model, x)
    defense = WasserTrain(attack=WasserAttack(eps=0.01, growth=2.0, every=2, steps=14))  # up to 0.64
    record = defense.perturb(model, x, y, rng=torch.Generator().manual_seed(0))
    assert record.success.any()
    assert torch.equal(classes_of(model, record.x_adv) != y, record.success)
    # The point that gradient k judges was made by step k - 2: a row that took k gradients is within that step's radius.
    radii = 0.01 * 2.0 ** ((record.forwards - 2).clamp_min(0) // 2)
    found = torch.tensor(distances(x, record.x_adv, 2))
    assert (found <= radii * (1 + 1e-6)).all()
    assert found.max() > 0.02  # the first radius did not do
    assert record.forwards[record.success].unique().numel() > 1


def test_a_weight_beyond_one_is_named() -> None:
    with pytest.raises(ValueError, match=r"adversarial_weight: a share of the loss, between 0 and 1, not 1.5"):
        WasserTrain(adversarial_weight=1.5)
