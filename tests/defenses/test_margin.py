"""Margin maximisation: support vector machines by hand, second-order gradients by differences, DeepFool."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.deepfool import DeepFool
from algorithms.defenses.margin import Margin
from algorithms.margins import geometric_margin, sensitivity
from algorithms.search import search
from tests.defenses.differences import batch, differences, tiny
from tests.networks import Affine, Counting, images, small

KINDS = ("squared_l2", "l2", "l1")


def deep_linear(classes: int) -> tuple[nn.Sequential, Tensor]:
    """Three layers without activations, and the one matrix that they are."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 6), nn.Linear(6, classes)).double()
    return model, (model[3].weight @ model[2].weight @ model[1].weight).detach()


def value(defense: Margin, model: nn.Module, x: Tensor, y: Tensor) -> float:
    return defense.loss(model, x, x, y, rng=torch.Generator()).item()


def assert_slopes_of(defense: Margin, model: nn.Module) -> None:
    x, _, y = batch()

    def loss() -> Tensor:
        return defense.loss(model, x, x, y, rng=torch.Generator())

    found = torch.autograd.grad(loss(), list(model.parameters()))
    for one, other in zip(found, differences(model, loss), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_linear_network_it_is_the_multiclass_support_vector_objective(kind: Any) -> None:
    model, w = deep_linear(4)
    x, y = images(8, dtype=torch.float64), torch.arange(8) % 4
    total = 0.0
    for row, label in zip(x, y.tolist(), strict=True):
        logits = model(row.unsqueeze(0))[0].tolist()
        others = [j for j in range(4) if j != label]
        hinge = max(max(0.0, 1 + logits[j] - logits[label]) for j in others)
        norms = {"l1": lambda v: v.abs().sum(), "l2": lambda v: v.norm(), "squared_l2": lambda v: v.square().sum()}
        total += hinge + 0.3 * max(norms[kind](w[label] - w[j]).item() for j in others)
    assert value(Margin(weight=0.3, sensitivity=kind), model, x, y) == pytest.approx(total / 8, abs=1e-12)


def test_with_two_classes_it_is_the_support_vector_machine() -> None:
    """f = z_1 - z_0 = <w, x> + b: the mean of (1 - s f)_+ + C ||w||, with s the sign of the class."""
    model, matrix = deep_linear(2)
    w, x, y = matrix[1] - matrix[0], images(8, dtype=torch.float64), torch.arange(8) % 2
    f = (model(x)[:, 1] - model(x)[:, 0]).detach()
    expected = (1 - (2 * y - 1) * f).clamp_min(0).mean() + 0.7 * w.norm()
    counted = Counting(model)
    assert value(Margin(weight=0.7, sensitivity="l2"), counted, x, y) == pytest.approx(expected.item(), abs=1e-12)
    assert counted.backwards == 8  # there is no rival to look for


def test_cross_entropy_takes_the_place_of_the_hinge() -> None:
    model, x, y = small(dtype=torch.float64), images(dtype=torch.float64), torch.arange(6) % 4
    expected = nn.functional.cross_entropy(model(x), y) + 0.2 * sensitivity(model, x, y, "l1").mean()
    found = value(Margin(weight=0.2, sensitivity="l1", fit="cross_entropy"), model, x, y)
    assert found == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("fit", ["hinge", "cross_entropy"])
@pytest.mark.parametrize("kind", KINDS)
def test_second_order_gradients_by_differences(kind: Any, fit: Any) -> None:
    model = tiny()
    model[2].momentum = 0.0  # the batch norm's statistics stay: the sensitivity depends on them
    assert_slopes_of(Margin(weight=2.0, sensitivity=kind, fit=fit), model)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_relu_network_too_where_the_sensitivity_moves_no_bias(kind: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)]
        model = nn.Sequential(nn.Flatten(), *layers).double()
    assert_slopes_of(Margin(weight=2.0, sensitivity=kind), model)
    x, _, y = batch()
    alone = torch.autograd.grad(sensitivity(model, x, y).sum(), list(model.parameters()), allow_unused=True)
    assert all(slope is None or not slope.any() for slope in alone[1::2])
    assert all(slope is not None and slope.any() for slope in alone[::2])


def test_scaled_logits_scale_the_sensitivity() -> None:
    _, w = deep_linear(4)
    x, y = images(dtype=torch.float64), torch.arange(6) % 4
    for kind, factor in {"l2": 3, "l1": 3, "squared_l2": 9}.items():
        defense = Margin(weight=1.0, sensitivity=kind)  # type: ignore[arg-type]
        plain = defense._sensitivity(Affine(w), x, y)
        torch.testing.assert_close(defense._sensitivity(Affine(3 * w), x, y), factor * plain)


def test_the_sensitivity_is_of_the_network_as_it_evaluates_row_by_row() -> None:
    model, (x, _, y) = tiny(), batch()
    defense = Margin()
    whole = defense._sensitivity(model, x, y)
    torch.testing.assert_close(defense._sensitivity(model, x[:2], y[:2]), whole[:2], rtol=1e-12, atol=0)
    assert model.training
    assert not torch.allclose(sensitivity(model, x, y).square(), whole)  # as it trains, by the batch's statistics


def test_a_flat_network_has_a_finite_gradient() -> None:
    model = Affine(torch.zeros(3, 36, dtype=torch.float64))
    x, y = images(dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    for kind in KINDS:
        loss = Margin(sensitivity=kind).loss(model, x, x, y, rng=torch.Generator())  # type: ignore[arg-type]
        assert torch.isfinite(torch.autograd.grad(loss, model.weight)[0]).all()
    assert torch.isinf(geometric_margin(model, x, y)).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_geometric_margin_of_a_linear_network_is_the_distance_that_deepfool_finds(norm: Any) -> None:
    w = 0.2 * torch.randn(4, 36, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = Affine(w)
    x = 0.5 + 0.05 * (images(12, dtype=torch.float64) - 0.5)  # far from the ends of the pixels' range
    y = model(x).argmax(1)
    record = search(DeepFool(norm=norm), model, x, y, rng=torch.Generator(), policy="first success")
    assert record.success.all()
    margin = geometric_margin(model, x, y, norm)
    torch.testing.assert_close(record.norm / 1.02, margin, rtol=5e-3, atol=2e-4)  # DeepFool goes 1e-4 too far
    wrong = geometric_margin(model, x, (y + 1) % 4, norm)
    assert (wrong < 0).all()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^weight: "):
        Margin(weight=-1.0)
