"""The high-confidence attack: what it reaches, how far away, and what it leaves alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.high_confidence import HighConfidence
from tests.attacks.optima import affine
from tests.attacks.records import run
from tests.networks import Affine, Counting, classes_of, images, small


def probability(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)


def two(gap: float = -3.0) -> tuple[Affine, Tensor, Tensor]:
    """Two classes, inner images, and a slope of length 5 between the logits, whose gap at grey is `gap`."""
    weight = torch.randn(36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = 5 * weight / weight.norm()
    model = Affine(torch.stack([0 * weight, weight]), torch.stack([weight.sum() * 0, gap - weight.sum() / 2]))
    x = 0.45 + 0.1 * torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, x, torch.zeros(5, dtype=torch.int64)


def test_the_distance_is_that_of_the_confidence() -> None:
    model, x, y = two()
    record = run(HighConfidence(probability=0.9, overshoot=0.0), model, x, y)
    with torch.no_grad():
        logits = model(x)
    expected = (math.log(0.9 / 0.1) - (logits[:, 1] - logits[:, 0])) / 5
    assert record.success.all()
    torch.testing.assert_close(record.norm, expected, rtol=1e-3, atol=0)
    assert (probability(model, record.x_adv, 1 - y) >= 0.9).all()


def test_without_a_number_it_reaches_what_the_clean_image_has() -> None:
    model, x, y = two(gap=-1.0)
    record = run(HighConfidence(), model, x, y)
    own, other = probability(model, x, y), probability(model, record.x_adv, 1 - y)
    assert (other >= own).all()
    assert (other <= own + 0.02).all()


def test_no_step_is_longer_than_allowed() -> None:
    model, x, y = two()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    run(HighConfidence(probability=0.99, overshoot=0.0, steps=3), model, x, y)
    for one, other in itertools.pairwise(seen[1:]):
        assert ((other - one).flatten(1).norm(dim=1) <= 0.1 + 1e-9).all()
    torch.testing.assert_close((seen[2] - seen[1]).flatten(1).norm(dim=1), torch.full((5,), 0.1).double())


def test_it_goes_to_the_nearest_class_or_the_given_one() -> None:
    model, x, y = affine(classes=4, rows=8, scale=0.3)
    weight, (logits, own) = model.weight.detach(), (model(x).detach(), y.unsqueeze(1))
    gaps = (logits.gather(1, own) - logits) / (weight[y].unsqueeze(1) - weight.unsqueeze(0)).norm(dim=2).clamp_min(1e-9)
    nearest = gaps.scatter(1, own, torch.inf).argmin(1)
    untargeted = run(HighConfidence(probability=0.9), model, x, y)
    assert (probability(model, untargeted.x_adv, nearest) >= 0.9).all()
    target = (y + 2) % 4
    aimed = run(HighConfidence(probability=0.9, targeted=True), model, x, target)
    assert (probability(model, aimed.x_adv, target) >= 0.9).all()


def test_a_confidence_below_a_half_needs_the_class_too() -> None:
    model, x, y = affine(classes=6, rows=8, scale=0.02)
    record = run(HighConfidence(probability=0.05), model, x, y)
    assert record.success.all()
    assert (classes_of(model, record.x_adv) != y).all()


def test_what_is_adversarial_already_is_left_alone() -> None:
    model, x = small(), images()
    record = run(HighConfidence(probability=0.99), model, x, (classes_of(model, x) + 1) % 4)
    assert torch.equal(record.x_adv, x)
    assert record.forwards.tolist() == [1] * 6


def test_rows_that_are_there_leave_the_batch() -> None:
    model, x, y = two()
    counting = Counting(model)
    quick = run(HighConfidence(probability=0.6, overshoot=0.05), counting, x, y)
    assert quick.success.all()
    assert counting.forwards == int(quick.forwards.sum()) < 5 * 60
    assert (quick.backwards == quick.forwards + 1).all()  # two classes for the choice, then one a step


def test_it_stays_in_the_box() -> None:
    model, x, y = affine(rows=8, scale=0.3)
    record = run(HighConfidence(probability=0.99), model, x, y)
    assert record.x_adv.min() >= 0
    assert record.x_adv.max() <= 1
    assert record.success.all()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("probability", 1.5), ("overshoot", -1.0), ("longest", -1.0)]
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        HighConfidence(**{field: value})
