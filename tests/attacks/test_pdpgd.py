"""PDPGD against the smallest perturbations in the box, its softened metric against inner iterations, a step by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algorithms import prox
from algorithms.attacks.pdpgd import PDPGD, softened
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run
from tests.networks import classes_of, images, small


@pytest.mark.parametrize(("norm", "near"), [("linf", 1.03), ("l2", 1.04), ("l1", 1.05), ("l0", 1.6)])
def test_the_norm_is_near_the_optimum(norm: Any, near: float) -> None:
    model, x, y = affine(rows=8)
    record = run(PDPGD(norm=norm), model, x, y)
    ratio = record.norm / smallest(model, x, norm)
    assert record.success.all()
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= near
    assert record.backwards.tolist() == [500] * 8


def test_the_softened_metric_does_what_five_inner_iterations_do() -> None:
    rng = torch.Generator().manual_seed(2)
    scale = torch.rand(3, 1, 4, 5, generator=rng, dtype=torch.float64) + 1e-3
    largest = scale.flatten(1).amax(1).view(-1, 1, 1, 1)
    strength = 0.2 * torch.rand(3, generator=rng, dtype=torch.float64)
    mu = strength.view(-1, 1, 1, 1) / largest
    moved = torch.randn(scale.shape, generator=rng, dtype=torch.float64)
    moved += moved.sign() * 5 * mu  # so that no entry gets to zero
    inner = moved
    for _ in range(5):
        pulled = inner - scale / largest * (inner - moved)
        inner = pulled.sign() * (pulled.abs() - mu).clamp_min(0)
    torch.testing.assert_close(prox.l1(moved, strength, weight=softened(scale)), inner)


def test_the_softened_metric_by_hand() -> None:
    scale = torch.tensor([2.0, 1.0, 0.0]).view(1, 1, 1, 3)
    # of the largest entry, one strength; of half of it, 1 + 1/2 + 1/4 + 1/8 + 1/16; without slope, five
    torch.testing.assert_close(softened(scale), torch.tensor([2.0, 2 / 1.9375, 0.4]).view(1, 1, 1, 3))


def test_the_first_step_by_hand() -> None:
    model, x, y = two_pixels(3, 4, bias=-5.0, x=(0.5, 0.5))
    seen: list[list[float]] = []
    model.register_forward_pre_hook(lambda _, given: seen.append((given[0].detach() - x).flatten().tolist()))
    run(PDPGD(norm="l1", steps=1, step_size=0.2, ratio=0.5), model, x, y)
    # Adam moves both pixels by 0.2; its scales are the gradient's entries, 3 and 4 times the pull sigmoid(1.5); with
    # 0.2 * 0.5 over the larger scale as the unit, one unit comes off the second, 1 + 1/4 + ... + 1/4^4 off the first
    unit = 0.1 / (4 * torch.sigmoid(torch.tensor(1.5)).item())
    torch.testing.assert_close(seen[1], [0.2 - unit * (1 - 0.25**5) / 0.75, 0.2 - unit], rtol=1e-4, atol=1e-6)


def test_pixels_count_once_whatever_their_channels_do() -> None:
    model, x = small(3), images(8, 3)
    y = classes_of(model, x)
    record = run(PDPGD(norm="l0", steps=200, pixels=True), model, x, y)
    changed = (record.x_adv != x).any(1).sum((1, 2))
    assert record.success.sum() >= 6
    assert record.norm.tolist() == changed.tolist()
    entries = run(PDPGD(norm="l0", steps=200), model, x, y)
    assert changed.sum() < (entries.x_adv != x).any(1).sum()


def test_restarts_begin_elsewhere_and_keep_the_best() -> None:
    model, x, y = affine(rows=4)
    starts: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: starts.append(given[0].detach().clone()))
    once = run(PDPGD(steps=40), model, x, y).norm
    starts.clear()
    twice = run(PDPGD(steps=40, restarts=2, random_start=0.25), model, x, y).norm
    assert torch.equal(starts[0], x)
    assert 0.2 < (starts[41] - x).abs().max() <= 0.25
    assert (twice <= once).all()


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(rows=8)
    target = (y + 3) % 10
    record = run(PDPGD(steps=100, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"step_size": -1.0}, "step_size"),
        ({"ratio": 0.0}, "ratio"),
        ({"fine_tuning": 500}, "fine_tuning"),
        ({"norm": "l1", "pixels": True}, "pixels: only the norm l0 counts pixels, and the norm is l1"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PDPGD(**given)
