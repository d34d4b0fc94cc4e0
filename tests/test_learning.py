"""Label smoothing and weight perturbation, which every defense can have: by hand, and what they leave alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import plugins
from algorithms.defenses import Defense
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.margin import Margin
from algorithms.defenses.mart import Mart
from algorithms.defenses.standard import Standard
from algorithms.defenses.trades import Trades
from algorithms.smoothing import smoothed
from orchestrator.backend import Inline
from tests.attacks.cheap import cheap
from tests.defenses.differences import batch, tiny
from tests.networks import small, team
from tests.training import WORK, bits, changed
from workers.descent import Learning, shard_gradient

SMOOTH, FLAT = Learning(label_smoothing=0.1), Learning(weight_perturbation=0.2)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def gradient(model: nn.Module, learning: Learning, defense: Defense | None = None) -> Any:
    return shard_gradient(model, defense or Standard(), batch(), rng(), learning)


@pytest.mark.parametrize("defense", [Standard(), Adversarial(), Trades(beta=2.0), Mart(), Margin(fit="cross_entropy")])
def test_smoothing_adds_the_gap_between_the_labels_logit_and_the_mean(defense: Defense) -> None:
    """A cross-entropy grows by the share times z_y minus the mean of z, for logits z, and nothing else changes."""
    x, x_adv, y = batch()
    model = tiny()
    logits = model(x_adv if isinstance(defense, Adversarial | Mart) else x)
    gap = (logits.gather(1, y.unsqueeze(1)).squeeze(1) - logits.mean(1)).mean().item()
    with smoothed(0.1):
        found = defense.loss(tiny(), x, x_adv, y, rng=rng()).item()
    assert found == pytest.approx(defense.loss(tiny(), x, x_adv, y, rng=rng()).item() + 0.1 * gap, abs=1e-9)
    assert gradient(tiny(), SMOOTH, defense).loss == pytest.approx(found, abs=1e-9)


def test_smoothing_ends_with_the_block_and_says_when_there_is_nothing_to_smooth() -> None:
    logits, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    plain = functional.cross_entropy(logits, y)
    with smoothed(0.5):
        assert functional.cross_entropy(logits, y) > plain
    assert functional.cross_entropy(logits, y) == plain
    with pytest.raises(ValueError, match=r"^label_smoothing: .*no cross-entropy"):
        gradient(tiny(), SMOOTH, Margin())


def perturbed_by_hand(x: Tensor, y: Tensor, model: nn.Sequential, size: float) -> Tensor:
    """The gradient of a network without batch norm, with both of its matrices moved up the loss."""
    plain = torch.autograd.grad(functional.cross_entropy(model(x), y), list(model.parameters()))
    moved = [
        p if p.dim() < 2 else p + size * p.norm() * g / g.norm() for p, g in zip(model.parameters(), plain, strict=True)
    ]
    leaves = [m.detach().requires_grad_() for m in moved]
    hidden = torch.tanh(functional.linear(x.flatten(1), leaves[0], leaves[1]))
    loss = functional.cross_entropy(functional.linear(hidden, leaves[2], leaves[3]), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])


def test_the_gradient_is_that_of_the_worst_weights_nearby_by_hand() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    before = [p.clone() for p in model.parameters()]
    x, _, y = batch()
    found = gradient(model, FLAT)
    torch.testing.assert_close(found.gradient, perturbed_by_hand(x, y, model, 0.2))
    assert found.loss > gradient(model, Learning()).loss
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_the_first_pass_leaves_no_trace_in_buffers_and_random_numbers() -> None:
    """A perturbation of nothing gives the bits of none: dropout draws the same again, batch norm sees one pass."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    plain, again = (gradient(model, Learning(weight_perturbation=size)) for size in (0.0, 1e-300))
    assert torch.equal(plain.gradient, again.gradient)
    assert all(np.array_equal(s.shift, again.statistics[name].shift) for name, s in plain.statistics.items())


def test_a_weight_without_gradient_stays() -> None:
    model = tiny()
    with torch.no_grad():
        model[4].weight.zero_()  # so that no gradient reaches the first layer
    assert gradient(model, FLAT).gradient.isfinite().all()


@pytest.mark.parametrize("name", plugins.names(Defense))
def test_every_defense_can_have_both(name: str) -> None:
    defense = cheap(plugins.find(Defense, name))
    if isinstance(defense, Margin):
        defense = Margin(fit="cross_entropy")
    x = torch.rand(6, 1, 6, 6, generator=rng(), dtype=torch.float64)
    y = torch.arange(6) % 4
    gradients = []
    for smoothing, size in itertools.product((0.0, 0.2), (0.0, 0.1)):
        network = team(defense, small(dtype=torch.float64), x)
        found = shard_gradient(network, defense, (x, x, y), rng(), Learning(smoothing, size))
        assert found.gradient.isfinite().all()
        gradients.append(found.gradient)
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(gradients, 2))


def test_a_run_has_them_and_the_same_bits_wherever_gradients_are_taken(tmp_path: Path) -> None:
    fields = {"label_smoothing": 0.1, "weight_perturbation": 0.01}
    one, other = changed(**fields), changed(exchange="gradients", **fields)
    found = bits(Inline(one), tmp_path / "examples", one)
    assert bits(Inline(other), tmp_path / "gradients", other) == found
    assert bits(Inline(WORK), tmp_path / "plain") != found
