"""Virtual adversarial training: the direction against eigenvectors, the loss by hand and by differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.defenses.virtual_adversarial import VirtualAdversarial
from tests.defenses.differences import assert_slopes, batch, loss_by_hand, tiny
from tests.networks import Affine, Counting, images

ZEROS = torch.zeros(6, dtype=torch.int64)


def directions(classes: int, dtype: torch.dtype = torch.float64, **fields: Any) -> tuple[Tensor, Tensor]:
    """What is added to six images, and the eigenvector of the divergence's largest curvature there.

    For logits W x the Hessian of KL(p(x) || p(x + r)) at r = 0 is W^T (diag p - p p^T) W.
    """
    weight = torch.randn(classes, 36, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x = images()
    defense = VirtualAdversarial(**{"eps": 0.5, "clipped": False, **fields})
    x_adv = defense.perturb(Affine(weight.to(dtype)), x.to(dtype), ZEROS, rng=torch.Generator().manual_seed(2)).x_adv
    expected = []
    for p in (x.double().flatten(1) @ weight.T).softmax(1).numpy():
        hessian = weight.numpy().T @ (np.diag(p) - np.outer(p, p)) @ weight.numpy()
        expected.append(np.linalg.eigh(hessian)[1][:, -1])
    return (x_adv - x.to(dtype)).flatten(1).double(), torch.tensor(np.array(expected))


def cosines(found: Tensor, expected: Tensor) -> Tensor:
    return (functional.normalize(found) * expected).sum(1).abs()


def test_with_two_classes_one_iteration_finds_the_direction() -> None:
    found, expected = directions(2)
    torch.testing.assert_close(found.norm(dim=1), torch.full((6,), 0.5, dtype=torch.float64))
    assert (cosines(found, expected) > 1 - 1e-6).all()


def test_many_iterations_find_the_dominant_eigenvector() -> None:
    one, expected = directions(4, probe=1e-4)
    many, _ = directions(4, steps=200, probe=1e-4)
    assert (cosines(many, expected) > 0.999).all()
    assert cosines(one, expected).mean() < 0.98


def test_the_default_probe_is_precise_enough_for_float32() -> None:
    exact, _ = directions(4)
    single, _ = directions(4, dtype=torch.float32)
    assert (functional.cosine_similarity(single, exact) > 0.99).all()


def test_pixels_stay_in_range_unless_they_need_not() -> None:
    x, model = images(), Affine(torch.randn(4, 36, generator=torch.Generator().manual_seed(6)))
    free = VirtualAdversarial(clipped=False).perturb(model, x, ZEROS, rng=torch.Generator()).x_adv
    assert free.min() < 0
    assert free.max() > 1
    clipped = VirtualAdversarial().perturb(model, x, ZEROS, rng=torch.Generator()).x_adv
    assert torch.equal(clipped, free.clamp(0, 1))
    assert torch.equal(VirtualAdversarial().perturb(model, x, ZEROS + 3, rng=torch.Generator()).x_adv, clipped)


def test_it_costs_a_forward_pass_and_a_gradient_for_each_iteration() -> None:
    model = Counting(Affine(torch.eye(36)[:4]))
    record = VirtualAdversarial(steps=3).perturb(model, images(), ZEROS, rng=torch.Generator())
    assert (record.forwards.tolist(), record.backwards.tolist()) == ([4] * 6, [3] * 6)
    assert (model.forwards, model.backwards) == (24, 18)


def test_the_loss_by_hand() -> None:
    expected = math.log(1 + math.exp(-1)) + 2 * math.tanh(0.5)
    assert loss_by_hand(VirtualAdversarial(weight=2.0)) == pytest.approx(expected, abs=1e-12)


def test_no_gradient_flows_through_the_target() -> None:
    x, x_adv, y = batch()
    target = tiny()(x).softmax(1).detach()

    def with_fixed_target(model: nn.Module) -> Tensor:
        divergence = functional.kl_div(model(x_adv).log_softmax(1), target, reduction="batchmean")
        return functional.cross_entropy(model(x), y) + 2 * divergence

    assert_slopes(VirtualAdversarial(weight=2.0), with_fixed_target)


@pytest.mark.parametrize(("field", "value"), [("eps", -1.0), ("weight", -1.0), ("steps", 0), ("probe", 0.0)])
def test_numbers_that_make_no_sense(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        VirtualAdversarial(**{field: value})
