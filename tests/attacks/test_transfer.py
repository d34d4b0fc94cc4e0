"""Transfer: what the model sees of an attack on another model."""

from __future__ import annotations

import math

import pytest
import torch

from algorithms.attacks import Attack
from algorithms.attacks.deepfool import DeepFool
from algorithms.attacks.pgd import PGD
from algorithms.attacks.transfer import Transfer
from algorithms.companions import WithSurrogate
from algorithms.search import search
from algorithms.streams import Streams
from tests.attacks.records import assert_true, run
from tests.networks import Affine, Counting, classes_of, images, small

PGD_10 = PGD(eps=0.1, step_size=0.03)


def other() -> torch.nn.Module:
    """Another network than `small()`, for the same images and classes."""
    return Affine(0.5 * torch.randn(4, 36, generator=torch.Generator().manual_seed(8)))


def test_its_images_are_the_surrogates_and_its_successes_the_models() -> None:
    model, surrogate, x = small(), other(), images(12)
    y = classes_of(model, x)
    record = run(Transfer(attack=PGD_10), WithSurrogate(model, surrogate), x, y)
    streams = Streams.draw(torch.Generator().manual_seed(5), 12).fork(0)
    alone = search(PGD_10, surrogate, x, y, rng=streams, policy="highest loss")
    assert torch.equal(record.x_adv, alone.x_adv)
    assert record.success.tolist() == (classes_of(model, record.x_adv) != y).tolist()
    assert record.success.sum() < alone.success.sum()
    assert_true(record, Transfer(attack=PGD_10), model, x, y)


def test_the_model_is_asked_once() -> None:
    model, surrogate, x = Counting(small()), Counting(other()), images()
    y = classes_of(model.model, x)
    record = run(Transfer(attack=PGD_10), WithSurrogate(model, surrogate), x, y)
    assert (model.forwards, model.backwards) == (6, 0)
    assert int(record.forwards.sum()) == 6 + surrogate.forwards
    assert int(record.backwards.sum()) == surrogate.backwards > 0


def test_a_model_without_gradients_can_be_attacked() -> None:
    model, x = small(), images(12)
    y = classes_of(model, x)
    rounded = torch.nn.Sequential(model, torch.nn.Hardtanh(), Rounding())
    record = run(Transfer(attack=PGD_10), WithSurrogate(rounded, model), x, classes_of(rounded, x))
    assert record.forwards.min() > 0
    assert classes_of(model, record.x_adv).ne(y).any()


class Rounding(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.detach() * 8).round()


@pytest.mark.parametrize(
    "attack", [PGD(norm="l2", eps=0.7, loss="margin", targeted=True), DeepFool()], ids=["pgd", "deepfool"]
)
def test_norm_loss_and_radius_are_the_attacks(attack: Attack) -> None:
    transfer = Transfer(attack=attack)
    assert (transfer.norm, transfer.loss, transfer.targeted) == (attack.norm, attack.loss, attack.targeted)
    assert transfer.eps == getattr(attack, "eps", math.inf)
    assert not transfer.minimal


def test_a_minimal_attack_is_judged_at_its_smallest_point() -> None:
    model, x = small(), images(12)
    y = classes_of(model, x)
    transferred = run(Transfer(attack=DeepFool()), WithSurrogate(model, model), x, y)
    alone = run(DeepFool(), model, x, y)
    torch.testing.assert_close(transferred.x_adv, alone.x_adv)
    assert transferred.success.tolist() == alone.success.tolist()


def test_a_surrogate_that_has_not_come_is_missed() -> None:
    x = images()
    with pytest.raises(ValueError, match=r"surrogate: 'mnist-42' is the name of a run, .* WithSurrogate"):
        run(Transfer(surrogate="mnist-42"), small(), x, torch.zeros(6, dtype=torch.int64))
    record = run(Transfer(surrogate="mnist-42"), WithSurrogate(small(), other()), x, torch.zeros(6, dtype=torch.int64))
    assert record.forwards.min() > 0


def test_the_surrogate_is_left_as_it_was() -> None:
    surrogate, x = small().train(), images()
    statistics = surrogate[1].running_mean.clone()
    run(Transfer(attack=PGD_10), WithSurrogate(other(), surrogate), x, torch.zeros(6, dtype=torch.int64))
    assert surrogate[1].training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in surrogate.parameters())
    assert torch.equal(surrogate[1].running_mean, statistics)
