"""FGSM on models where one step is the best there is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from algorithms import balls
from algorithms.attacks.fgsm import FGSM
from algorithms.search import Policy, Record, search
from tests.networks import Affine, images

W = torch.tensor([1.0, -2.0, 3.0, 0.5, -0.5, 1.5, -1.0, 2.0, 0.0] * 4, dtype=torch.float64)  # 36 pixels, as `images`


def gap(x: Tensor) -> Tensor:
    """The second logit minus the first."""
    return (x.flatten(1) - 0.5) @ W + 0.3


def two_classes() -> Affine:
    return Affine(torch.stack([torch.zeros_like(W), W]), torch.stack([W.sum() / 2 - 0.3, torch.zeros_like(W[0])]))


def attacked(attack: FGSM, x: Tensor, y: Tensor, policy: Policy = "highest loss") -> Record:
    return search(attack, two_classes(), x, y, rng=torch.Generator(), policy=policy)


def inner(count: int = 8) -> Tensor:
    """Images that no step of these tests takes to 0 or 1."""
    return 0.4 + 0.2 * torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_in_linf_it_is_the_best_of_the_ball_and_the_box() -> None:
    x = images(8, dtype=torch.float64)  # with pixels at 0 and at 1, which can move one way only
    zeros = torch.zeros(8, dtype=torch.int64)
    corners = torch.where(W.view(1, 1, 6, 6) > 0, (x + 0.1).clamp(max=1), (x - 0.1).clamp(min=0))
    best = torch.where(W.view(1, 1, 6, 6) == 0, x, corners)  # linear and separable: each pixel at its own end
    assert torch.equal(attacked(FGSM(eps=0.1), x, zeros).x_adv, best)


@pytest.mark.parametrize(("norm", "eps", "gain"), [("linf", 0.1, 0.1 * 46), ("l2", 0.3, None), ("l1", 0.35, 0.35 * 3)])
def test_it_gains_eps_times_the_dual_norm(norm: balls.Norm, eps: float, gain: float | None) -> None:
    x, ones = inner(), torch.ones(8, dtype=torch.int64)
    expected = eps * W.square().sum().sqrt().item() if gain is None else gain
    for y, sign in ((ones * 0, 1), (ones, -1)):
        x_adv = attacked(FGSM(norm=norm, eps=eps), x, y).x_adv
        torch.testing.assert_close(sign * (gap(x_adv) - gap(x)), torch.full((8,), expected, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fools_exactly_the_rows_within_reach(norm: balls.Norm) -> None:
    x = inner(40)
    y = (gap(x) > 0).long()
    reach = gap(x).abs() / {"linf": W.abs().sum(), "l2": W.square().sum().sqrt()}[norm]
    eps = reach.median().item() * 1.01
    record = attacked(FGSM(norm=norm, eps=eps), x, y, "first success")
    assert record.success.tolist() == (reach < eps).tolist()
    assert 0 < record.success.sum() < 40


def test_a_target_is_approached_by_the_same_step_the_other_way() -> None:
    x, zeros = inner(), torch.zeros(8, dtype=torch.int64)
    away = attacked(FGSM(eps=0.1), x, zeros).x_adv
    towards = attacked(FGSM(eps=0.1, targeted=True), x, zeros + 1).x_adv
    assert torch.equal(towards, away)


def test_largest_entries_share_the_l1_budget() -> None:
    x = inner(1)
    moved = (attacked(FGSM(norm="l1", eps=0.2), x, torch.zeros(1, dtype=torch.int64)).x_adv - x).flatten()
    torch.testing.assert_close(moved, (W == 3).double() * 0.2 / 4)  # four weights are 3


def test_it_costs_two_forwards_and_one_backward_and_less_where_the_image_is_wrong_already() -> None:
    x = inner(6)
    right = (gap(x) > 0).long()
    record = attacked(FGSM(eps=1e-6), x, torch.where(torch.arange(6) < 2, 1 - right, right), "first success")
    assert record.forwards.tolist() == [1, 1, 2, 2, 2, 2]
    assert record.backwards.tolist() == [1] * 6


@pytest.mark.parametrize("eps", [-0.1, 8.0, float("nan")])
def test_a_radius_must_fit_the_pixels(eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps: a radius in pixel units .*, between 0 and 1, not"):
        FGSM(eps=eps)
    if eps == 8:
        assert FGSM(norm="l1", eps=eps).eps == 8
