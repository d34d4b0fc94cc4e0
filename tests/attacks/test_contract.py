"""What every attack promises, whatever its rule: all plug-ins in `algorithms/attacks`, in every norm they offer."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.search import Policy, Record, search
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels
from tests.attacks.cheap import has, in_its_ball, variants
from tests.networks import Affine, Counting, classes_of, images, margin, small

ATTACKS = variants()
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]


def run(attack: Attack, model: nn.Module, x: Images, y: Labels, policy: Policy = "first success") -> Record:
    return search(attack, model, x, y, rng=torch.Generator().manual_seed(5), policy=policy)


def norms_of(delta: Tensor, norm: str) -> Tensor:
    rows = delta.double().flatten(1).numpy()
    return torch.tensor([np.linalg.norm(row, ORDER[norm]) for row in rows])


def assert_true(record: Record, attack: Attack, model: nn.Module, x: Images, y: Labels) -> None:
    """The record says what is so, the images are images, and the attack kept to its budget."""
    x_adv = record.x_adv
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert ((x_adv >= 0) & (x_adv <= 1)).all()  # so written, NaN fails too
    with torch.no_grad():
        gap = margin(model(x_adv.to(next(model.parameters()).dtype)), y)
    assert record.success.tolist() == ((gap < 0) if attack.targeted else (gap > 0)).tolist()
    torch.testing.assert_close(record.norm.double(), norms_of(x_adv - x, attack.norm), rtol=1e-5, atol=1e-6)
    if in_its_ball(attack):
        assert (record.norm <= attack.eps * (1 + 1e-5) + 1e-6).all()  # type: ignore[attr-defined]
    assert (record.forwards > 0).all()


@pytest.mark.parametrize("policy", ["first success", "highest loss"])
def test_the_record_is_true_and_the_budget_kept(attack: Attack, policy: Policy) -> None:
    model, x = small(), images(12)
    y = classes_of(model, x)
    record = run(attack, model, x, y, policy)
    assert_true(record, attack, model, x, y)
    if attack.minimal and policy == "first success":
        assert torch.equal(record.x_adv[~record.success], x[~record.success])
        assert (classes_of(model, record.x_adv) != y)[record.success].all()


def test_a_call_returns_the_records_images(attack: Attack) -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    assert torch.equal(attack(model, x, y, rng=torch.Generator().manual_seed(5)), run(attack, model, x, y).x_adv)


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
    assert (int(record.forwards.sum()), int(record.backwards.sum())) == (model.forwards, model.backwards)


def test_the_same_seed_gives_the_same_bits(attack: Attack) -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    first = run(attack, model, x, y)
    torch.manual_seed(77)
    for one, other in zip(first, run(attack, model, x, y), strict=True):
        assert torch.equal(one, other)


def test_it_pickles_and_compares_as_a_value(attack: Attack) -> None:
    copy = pickle.loads(pickle.dumps(attack))
    assert copy == attack
    assert hash(copy) == hash(attack)


def test_nothing_around_it_changes(attack: Attack) -> None:
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
    run(attack, model, x, y)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]
    assert [parameter.grad is None for parameter in model.parameters()] == [True] * 5 + [False]
    for name, value in before.items():
        assert torch.equal(tensors[name], value), name
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == draws[1:]  # noqa: NPY002
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("rows", [[3], [7, 1, 4], [7, 6, 5, 4, 3, 2, 1, 0]], ids=["one", "some", "reversed"])
@pytest.mark.parametrize("policy", ["first success", "highest loss"])
def test_no_row_depends_on_the_others(attack: Attack, rows: list[int], policy: Policy) -> None:
    model, x = small(dtype=torch.float64), images(8, dtype=torch.float64)
    y = classes_of(model, x)
    streams = Streams.draw(torch.Generator().manual_seed(3), len(x))
    index = torch.tensor(rows)
    together = search(attack, model, x, y, rng=streams, policy=policy)
    apart = search(attack, model, x[index], y[index], rng=streams.select(index), policy=policy)
    for whole, part in zip(together, apart, strict=True):
        torch.testing.assert_close(part.double(), whole[index].double(), rtol=0, atol=1e-5)


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


@pytest.mark.parametrize("of_model", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("of_images", [torch.float64, torch.float32], ids=str)
def test_precisions(attack: Attack, of_model: torch.dtype, of_images: torch.dtype) -> None:
    model, x = small(dtype=of_model), images(dtype=of_images)
    y = classes_of(model, x.to(of_model))
    assert_true(run(attack, model, x, y), attack, model, x, y)


def test_images_that_are_not_contiguous(attack: Attack) -> None:
    model, x = small(3, dtype=torch.float64), images(channels=3, dtype=torch.float64)
    y = classes_of(model, x)
    turned = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not turned.is_contiguous()
    for one, other in zip(run(attack, model, turned, y), run(attack, model, x, y), strict=True):
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


# What is refused, and in which words


def spoilt(x: Images, value: float) -> Images:
    x = x.clone()
    x[1, 0, 2, 3] = value
    return x


BAD_INPUTS: dict[str, tuple[Callable[[Images, Labels], tuple[Any, Any]], str]] = {
    "empty": (lambda x, y: (x[:0], y[:0]), "x: the batch is empty"),
    "NaN": (lambda x, y: (spoilt(x, torch.nan), y), r"x: pixels in \[0, 1\] expected, got nan"),
    "infinite": (lambda x, y: (spoilt(x, torch.inf), y), r"x: pixels in \[0, 1\] expected, got 0 to inf"),
    "too bright": (lambda x, y: (x * 255, y), r"got 0 to 255; scale images to \[0, 1\] and put any normalisation"),
    "negative": (lambda x, y: (spoilt(x, -0.5), y), r"x: pixels in \[0, 1\] expected, got -0.5 to 1"),
    "integer images": (lambda x, y: (x.to(torch.uint8), y), r"x: float images .* got torch.uint8 \(6, 1, 6, 6\)"),
    "no channels": (lambda x, y: (x[:, 0], y), r"x: float images \(batch, channels, .* \(6, 6, 6\)"),
    "float labels": (lambda x, y: (x, y.float()), r"y: int64 labels of shape \(6,\) expected, got torch.float32"),
    "few labels": (lambda x, y: (x, y[1:]), r"y: int64 labels of shape \(6,\) expected, got torch.int64 \(5,\)"),
    "one-hot": (lambda x, y: (x, nn.functional.one_hot(y, 4)), r"y: int64 labels of shape \(6,\) .* \(6, 4\)"),
    "label 4 of 4": (lambda x, y: (x, y * 0 + 4), "y: labels 0 to 3 expected, got 4 to 4"),
    "label -1": (lambda x, y: (x, y * 0 - 1), "y: labels 0 to 3 expected, got -1 to -1"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_are_refused(attack: Attack, case: str) -> None:
    model, x = small(), images()
    spoil, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        run(attack, model, *spoil(x, classes_of(model, x)))


class Passing(nn.Module):
    """A model whose output `change` spoils."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.change = small(), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.model(x))


BAD_MODELS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one logit": (lambda z: z[:, :1], r"must return logits of shape \(6, classes\), .* got \(6, 1\)"),
    "no batch": (lambda z: z[0], r"must return logits of shape \(6, classes\), .* got \(4,\)"),
    "feature maps": (lambda z: z[:, :, None], r"must return logits of shape \(6, classes\), .* got \(6, 4, 1\)"),
    "a row lost": (lambda z: z[1:], r"must return logits of shape \(6, classes\), .* got \(5, 4\)"),
    "a tuple": (lambda z: (z, z), r"must return logits of shape \(6, classes\), .* got tuple"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_are_refused(attack: Attack, case: str) -> None:
    change, message = BAD_MODELS[case]
    x = images()
    with pytest.raises(ValueError, match=message):
        run(attack, Passing(change), x, torch.zeros(len(x), dtype=torch.int64))


def test_a_model_that_gives_nan_is_refused(attack: Attack) -> None:
    x = images()
    with pytest.raises(FloatingPointError, match="the model gave no finite loss"):
        run(attack, Passing(lambda z: z * torch.nan), x, torch.zeros(len(x), dtype=torch.int64))


NO_GRADIENT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "detached": (lambda z: z.detach(), "the model gives no gradient for its input"),
    "rounded": (lambda z: nn.functional.one_hot(z.argmax(1), 4).float(), "the model gives no gradient for its input"),
}


@pytest.mark.parametrize("case", NO_GRADIENT)
def test_a_model_without_gradient_is_refused_by_those_who_need_one(attack: Attack, case: str) -> None:
    change, message = NO_GRADIENT[case]
    x = images()
    model = Passing(change)
    y = classes_of(model.model, x)
    if run(attack, model.model, x, y).backwards.any():
        with pytest.raises(ValueError, match=message):
            run(attack, model, x, y)
    else:
        assert_true(run(attack, model, x, y), attack, model, x, y)
