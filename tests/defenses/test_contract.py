"""What every defense promises: all plug-ins in `algorithms/defenses`. And the two plainest, by hand."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms import plugins
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.standard import Standard
from algorithms.search import search
from tests.attacks.cheap import cheap
from tests.networks import Affine, classes_of, images, small, team


@pytest.fixture(params=plugins.names(Defense))
def defense(request: pytest.FixtureRequest) -> Defense:
    return cheap(plugins.find(Defense, request.param))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def shard(channels: int = 1, classes: int = 4, count: int = 6) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A model that trains, but for a frozen batch norm; images; labels, most of which it predicts."""
    model, x = small(channels, classes, torch.float64), images(count, channels, torch.float64)
    y = classes_of(model, x)
    y[0] = (y[0] + 1) % classes
    model.train()
    model[1].eval()
    return model, x, y


def gradients(defense: Defense, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    loss = defense.loss(team(defense, model, x), x, x_adv, y, rng=seeded())
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


def test_what_it_learns_from_are_images_at_a_cost(defense: Defense) -> None:
    model, x, y = shard()
    record = defense.perturb(team(defense, model, x), x, y, rng=seeded())
    assert record.x_adv.shape == x.shape
    assert record.x_adv.dtype == x.dtype
    assert not record.x_adv.requires_grad
    assert ((record.x_adv >= 0) & (record.x_adv <= 1)).all()
    assert all(len(part) == len(x) for part in record)
    assert (record.forwards >= 0).all()


def test_its_loss_is_a_finite_scalar_with_a_gradient_for_every_parameter(defense: Defense) -> None:
    model, x, y = shard()
    x_adv = defense.perturb(team(defense, model, x), x, y, rng=seeded()).x_adv
    loss, slopes = gradients(defense, model, x, x_adv, y)
    assert loss.shape == ()
    assert math.isfinite(loss.item())
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert all(slope.any() for slope in slopes)


def test_a_small_step_against_the_gradient_lowers_the_loss(defense: Defense) -> None:
    model, x, y = shard()
    x_adv = defense.perturb(team(defense, model, x), x, y, rng=seeded()).x_adv
    before, slopes = gradients(defense, model, x, x_adv, y)
    length = 1e-4 / sum((slope**2).sum() for slope in slopes).sqrt()
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter.sub_(length * slope)
    after = defense.loss(team(defense, model, x), x, x_adv, y, rng=seeded()).detach()
    assert after < before


def test_the_same_seed_gives_the_same_bits(defense: Defense) -> None:
    model, x, y = shard()
    first = defense.perturb(team(defense, model, x), x, y, rng=seeded())
    torch.manual_seed(99)
    for one, other in zip(first, defense.perturb(team(defense, model, x), x, y, rng=seeded()), strict=True):
        assert torch.equal(one, other)
    one_loss, one_slopes = gradients(defense, model, x, first.x_adv, y)
    other_loss, other_slopes = gradients(defense, model, x, first.x_adv, y)
    assert torch.equal(one_loss, other_loss)
    assert all(torch.equal(a, b) for a, b in zip(one_slopes, other_slopes, strict=True))


def test_nothing_around_it_changes(defense: Defense) -> None:
    model, x, y = shard()
    model[4].bias.grad = torch.full_like(model[4].bias, 3.0)
    tensors = {**model.state_dict(), "x": x, "y": y, "gradient": model[4].bias.grad}
    before = {name: value.clone() for name, value in tensors.items()}
    torch.manual_seed(1)
    draws = torch.get_rng_state()
    x_adv = defense.perturb(team(defense, model, x), x, y, rng=seeded()).x_adv
    defense.loss(team(defense, model, x), x, x_adv, y, rng=seeded())
    for name, value in before.items():  # the batch norm is frozen, so that no buffer may move
        assert torch.equal(tensors[name], value), name
    assert [module.training for module in model] == [True, False, True, True, True]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [parameter.grad is None for parameter in model.parameters()] == [True] * 5 + [False]
    assert torch.equal(torch.get_rng_state(), draws)


@pytest.mark.parametrize(("channels", "classes", "count"), [(1, 2, 1), (3, 5, 3)])
def test_other_shapes(defense: Defense, channels: int, classes: int, count: int) -> None:
    model, x, y = shard(channels, classes, count)
    x_adv = defense.perturb(team(defense, model, x), x, y, rng=seeded()).x_adv
    loss, slopes = gradients(defense, model, x, x_adv, y)
    assert math.isfinite(loss.item())
    assert all(torch.isfinite(slope).all() for slope in slopes)


def test_a_batch_norm_that_trains_is_attacked_as_it_evaluates(defense: Defense) -> None:
    model, x, y = shard()
    expected = defense.perturb(team(defense, model, x), x, y, rng=seeded()).x_adv
    model[1].train()
    before = model[1].running_mean.clone()
    assert torch.equal(defense.perturb(team(defense, model, x), x, y, rng=seeded()).x_adv, expected)
    assert torch.equal(model[1].running_mean, before)


def test_it_is_a_value_at_every_point_of_the_training(defense: Defense) -> None:
    assert pickle.loads(pickle.dumps(defense)) == defense
    for progress in (0.0, 0.3, 1.0):
        then = defense.at(progress)
        assert type(then) is type(defense)
        assert then == defense.at(progress)
        hash(then)


def test_a_step_that_ends_gives_finite_figures_and_changes_companions_alone(defense: Defense) -> None:
    model, x, y = shard()
    network = team(defense, model, x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        defense.loss(network, x, defense.perturb(network, x, y, rng=seeded()).x_adv, y, rng=seeded())
        assert all(math.isfinite(figure) for figure in defense.settle(network).values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# By hand

LOGITS_CLEAN, LOGITS_ADVERSARIAL = math.log(1 + math.exp(-1.0)), math.log(1 + math.exp(1.0))


def by_hand() -> dict[str, Any]:
    """One pixel v and logits (2 v, 0): class 0's cross-entropy is log(1 + exp(-2 v))."""
    model = Affine(torch.tensor([[2.0], [0.0]]), torch.tensor([0.0, 0.0]))
    half = torch.full((2, 1, 1, 1), 0.5)
    return {"model": model, "x": half, "x_adv": -half, "y": torch.zeros(2, dtype=torch.int64), "rng": seeded()}


def test_losses_by_hand() -> None:
    assert Standard().loss(**by_hand()).item() == pytest.approx(LOGITS_CLEAN)
    assert Adversarial().loss(**by_hand()).item() == pytest.approx(LOGITS_ADVERSARIAL)
    mixed = 0.25 * LOGITS_CLEAN + 0.75 * LOGITS_ADVERSARIAL
    assert Adversarial(clean_weight=0.25).loss(**by_hand()).item() == pytest.approx(mixed)


def test_standard_training_perturbs_nothing_free_of_charge() -> None:
    model, x, y = shard()
    record = Standard().perturb(model, x, y, rng=seeded())
    assert torch.equal(record.x_adv, x)
    assert not record.forwards.any()


def test_adversarial_training_keeps_the_point_that_it_is_told_to() -> None:
    model, x, y = shard()
    for keep in ("first success", "highest loss", "last"):
        defense = Adversarial(attack=FGSM(eps=0.1), keep=keep)
        expected = search(FGSM(eps=0.1), model, x, y, rng=seeded(), policy=keep)
        for one, other in zip(defense.perturb(model, x, y, rng=seeded()), expected, strict=True):
            assert torch.equal(one, other)


def test_the_first_of_two_attacks_makes_the_beginnings_examples() -> None:
    model, x, y = shard()
    weak, strong = FGSM(eps=0.1), PGD(eps=0.1, step_size=0.025, steps=3)
    defense = Adversarial(first=weak, until=0.25, attack=strong, keep="last")
    for progress, attack in ((0.0, weak), (0.24, weak), (0.25, strong), (1.0, strong)):
        expected = search(attack, model, x, y, rng=seeded(), policy="last")
        assert torch.equal(defense.at(progress).perturb(model, x, y, rng=seeded()).x_adv, expected.x_adv)
    for fields in ({"first": weak}, {"until": 0.25}):
        with pytest.raises(
            ValueError, match=r"^until: a share of the training for the attack `first`; neither, or both"
        ):
            Adversarial(**fields)


def test_a_share_is_a_share() -> None:
    with pytest.raises(ValueError, match="clean_weight: a share of the loss, between 0 and 1, not 2"):
        Adversarial(clean_weight=2.0)
