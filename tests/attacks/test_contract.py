"""What every attack promises, whatever its rule: all plug-ins in `algorithms/attacks`, in every norm they offer."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.attacks import Attack
from algorithms.search import Policy, search
from algorithms.streams import Streams
from algorithms.tensors import Images
from tests.attacks.cheap import has, in_its_ball, needs_logits
from tests.attacks.records import assert_true, run
from tests.networks import Affine, Counting, classes_of, images, margin, small


@pytest.mark.parametrize("policy", ["first success", "highest loss"])
def test_the_record_is_true_and_the_budget_kept(attack: Attack, policy: Policy) -> None:
    model, x = small(), images(12)
    y = classes_of(model, x)
    record = run(attack, model, x, y, policy)
    assert_true(record, attack, model, x, y)
    if attack.minimal and policy == "first success":
        assert torch.equal(record.x_adv[~record.success], x[~record.success])
        assert (classes_of(model, record.x_adv) != y)[record.success].all()


def test_a_call_returns_the_records_images(any_norm: Attack) -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    assert torch.equal(any_norm(model, x, y, rng=torch.Generator().manual_seed(5)), run(any_norm, model, x, y).x_adv)


def test_the_loss_rises(attack: Attack) -> None:
    model, x = small(), images(12)
    y = classes_of(model, x)
    x_adv = run(attack, model, x, y, "highest loss").x_adv
    with torch.no_grad():
        assert margin(model(x_adv), y).mean() > margin(model(x), y).mean() + 0.01


def test_passes_are_counted(attack: Attack) -> None:
    model, x = Counting(small()), images()
    y = classes_of(model.model, x)
    record = run(attack, model, x, y)
    assert int(record.forwards.sum()) == model.forwards
    assert int(record.backwards.sum()) == model.backwards or not needs_logits(attack)


def test_the_same_seed_gives_the_same_bits(any_norm: Attack) -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    first = run(any_norm, model, x, y)
    torch.manual_seed(77)
    for one, other in zip(first, run(any_norm, model, x, y), strict=True):
        assert torch.equal(one, other)


def test_it_pickles_and_compares_as_a_value(any_norm: Attack) -> None:
    copy = pickle.loads(pickle.dumps(any_norm))
    assert copy == any_norm
    assert hash(copy) == hash(any_norm)


def test_nothing_around_it_changes(any_norm: Attack) -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    model.train()
    model[1].eval()  # a frozen batch norm in a network that trains
    model[0].bias.requires_grad_(False)
    model[4].bias.grad = torch.full_like(model[4].bias, 3.0)
    tensors = {**model.state_dict(), "x": x, "y": y, "gradient": model[4].bias.grad}
    before = {name: value.clone() for name, value in tensors.items()}
    torch.manual_seed(1)
    draws = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(any_norm, model, x, y)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]
    assert [parameter.grad is None for parameter in model.parameters()] == [True] * 5 + [False]
    for name, value in before.items():
        assert torch.equal(tensors[name], value), name
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == draws[1:]  # noqa: NPY002
    assert torch.is_grad_enabled()


def test_a_training_model_is_attacked_as_it_evaluates(any_norm: Attack) -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    expected = run(any_norm, model, x, y)
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    assert torch.equal(run(any_norm, model.train(), x, y).x_adv, expected.x_adv)
    assert model[1].training
    for name, value in model.named_buffers():
        assert torch.equal(value, statistics[name]), name


@pytest.mark.parametrize("policy", ["first success", "highest loss"])
def test_no_row_depends_on_the_others(attack: Attack, policy: Policy) -> None:
    model, x = small(dtype=torch.float64), images(8, dtype=torch.float64)
    y = classes_of(model, x)
    streams = Streams.draw(torch.Generator().manual_seed(3), len(x))
    together = search(attack, model, x, y, rng=streams, policy=policy)
    for rows in (torch.tensor([3]), torch.tensor([7, 1, 4])):
        apart = search(attack, model, x[rows], y[rows], rng=streams.select(rows), policy=policy)
        for whole, part in zip(together, apart, strict=True):
            torch.testing.assert_close(part.double(), whole[rows].double(), rtol=0, atol=1e-5)


def test_rows_that_are_misclassified_already(attack: Attack) -> None:
    model, x = small(), images()
    y = (classes_of(model, x) + 1) % 4
    record = run(attack, model, x, y)
    assert_true(record, attack, model, x, y)
    assert record.success.all()
    if attack.minimal:
        assert torch.equal(record.x_adv, x)  # the smallest perturbation is none


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
def test_other_numbers_of_channels_and_classes(attack: Attack, channels: int, classes: int) -> None:
    model, x = small(channels, classes), images(5, channels)
    y = classes_of(model, x)
    assert_true(run(attack, model, x, y), attack, model, x, y)


PRECISIONS = [(torch.float64, torch.float64), (torch.float64, torch.float32), (torch.bfloat16, torch.float32)]


@pytest.mark.parametrize(("of_model", "of_images"), PRECISIONS, ids=["all double", "double model", "half model"])
def test_precisions(attack: Attack, of_model: torch.dtype, of_images: torch.dtype) -> None:
    model, x = small(dtype=of_model), images(dtype=of_images)
    y = classes_of(model, x.to(of_model))
    assert_true(run(attack, model, x, y), attack, model, x, y)


def test_images_that_are_not_contiguous(any_norm: Attack) -> None:
    model, x = small(3, dtype=torch.float64), images(channels=3, dtype=torch.float64)
    y = classes_of(model, x)
    turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not turned.is_contiguous()
    for one, other in zip(run(any_norm, model, turned, y), run(any_norm, model, x, y), strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=1e-5)


def test_a_radius_of_zero_leaves_the_image(attack: Attack) -> None:
    if not in_its_ball(attack):
        pytest.skip("has no radius")
    model, x = small(), images()
    nothing: Any = replace(attack, eps=0.0)  # type: ignore[type-var]
    for policy in ("first success", "highest loss"):
        record = run(nothing, model, x, classes_of(model, x), policy)
        assert torch.equal(record.x_adv, x)
        assert not record.success.any()


def immune(x: Images) -> Affine:
    """A model with honest gradients that no image makes change its mind."""
    rng = torch.Generator().manual_seed(2)
    return Affine(0.01 * torch.randn(3, x[0].numel(), generator=rng), torch.tensor([0.0, 50.0, 0.0]))


@pytest.mark.parametrize("policy", ["first success", "highest loss"])
def test_a_model_that_nothing_fools(attack: Attack, policy: Policy) -> None:
    x = images()
    model, y = immune(x), torch.ones(len(x), dtype=torch.int64)
    record = run(attack, model, x, y, policy)
    assert_true(record, attack, model, x, y)
    assert not record.success.any()
    if attack.minimal and policy == "first success":
        assert torch.equal(record.x_adv, x)


def test_a_model_without_slope(attack: Attack) -> None:
    x = images()
    model, y = Affine(torch.zeros(3, 36), torch.tensor([1.0, 0.0, 0.5])), torch.zeros(len(x), dtype=torch.int64)
    record = run(attack, model, x, y)
    assert_true(record, attack, model, x, y)
    assert not record.success.any()


def test_targets_come_nearer(attack: Attack) -> None:
    if not has(attack, "targeted"):
        pytest.skip("has no targets")
    model, x = small(), images(12)
    aimed: Any = replace(attack, targeted=True)  # type: ignore[type-var]
    with torch.no_grad():
        targets = model(x).topk(2).indices[:, 1]  # the second choice of each row
        record = run(aimed, model, x, targets, "highest loss")
        assert_true(record, aimed, model, x, targets)
        assert margin(model(record.x_adv), targets).mean() < margin(model(x), targets).mean() - 0.01
