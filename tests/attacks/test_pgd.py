"""PGD against closed forms, a loop written out, and what each of its fields is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import balls
from algorithms.attacks import Attack
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.search import Policy, Record, search
from tests.networks import Affine, classes_of, images, margin, small

W = torch.tensor([1.0, -2.0, 3.5, 0.5, -0.5, 1.5, -1.0, 2.0, 0.25] + [0.1] * 27, dtype=torch.float64)


def two_classes(scale: float = 1.0) -> Affine:
    """The second logit minus the first is W x - W/2, times `scale`."""
    weight = torch.randn(36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = torch.stack([W.sum() / 2, torch.zeros((), dtype=torch.float64)])
    return Affine(torch.stack([weight, weight + W]) * scale, bias * scale)


def gap(x: Tensor) -> Tensor:
    return (x.flatten(1) - 0.5) @ W


def inner(count: int = 8) -> Tensor:
    return 0.4 + 0.2 * torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def attacked(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, policy: Policy = "highest loss") -> Record:
    return search(attack, model, x, y, rng=torch.Generator().manual_seed(4), policy=policy)


# The largest gain of a linear function over each ball is eps times the dual norm of its slope.
BEST = {"linf": 0.1 * W.abs().sum(), "l2": 0.3 * W.square().sum().sqrt(), "l1": 0.35 * W.abs().max()}
EPS: dict[balls.Norm, float] = {"linf": 0.1, "l2": 0.3, "l1": 0.35}


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_reaches_the_best_point_of_the_ball(norm: Any, random_start: bool) -> None:
    eps, x = EPS[norm], inner()
    attack = PGD(norm=norm, eps=eps, step_size=eps / 2, steps=40, random_start=random_start)
    record = attacked(attack, two_classes(), x, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(gap(record.x_adv) - gap(x), BEST[norm].expand(8), rtol=1e-6, atol=0)


def test_in_linf_it_reaches_the_best_point_of_ball_and_box() -> None:
    x = images(8, dtype=torch.float64)
    best = (x + 0.1 * W.sign().view(1, 1, 6, 6)).clamp(0, 1)
    record = attacked(PGD(eps=0.1, step_size=0.03, steps=10), two_classes(), x, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(record.x_adv, best, rtol=0, atol=1e-12)


def test_it_fools_exactly_the_rows_within_reach() -> None:
    x = inner(40)
    reach = gap(x).abs() / W.abs().sum()
    eps = reach.median().item() * 1.01
    attack = PGD(eps=eps, step_size=eps / 3, steps=10)
    record = attacked(attack, two_classes(), x, (gap(x) > 0).long(), "first success")
    assert record.success.tolist() == (reach < eps).tolist()


def written_out(x: Tensor, y: Tensor, norm: str) -> Tensor:
    """Five steps of 0.04 (times 5 in l2) from the image itself in a ball of 0.1 (times 5), row by row."""
    model, rows = small(dtype=torch.float64), []
    for clean, label in zip(x, y, strict=True):
        point = clean[None]
        for _ in range(5):
            point = point.detach().requires_grad_()
            functional.cross_entropy(model(point), label[None]).backward()
            slope = point.grad
            assert slope is not None
            if norm == "linf":
                moved = point + 0.04 * slope.sign()
                point = torch.min(torch.max(moved, clean - 0.1), clean + 0.1).clamp(0, 1)
            else:
                offset = point + 0.2 * slope / slope.norm() - clean
                point = (clean + offset * min(1.0, 0.5 / offset.norm().item())).clamp(0, 1)
        rows.append(point.detach())
    return torch.cat(rows)


@pytest.mark.parametrize(("norm", "scale"), [("linf", 1), ("l2", 5)])
def test_it_is_the_loop_written_out(norm: Any, scale: int) -> None:
    x, model = images(5, dtype=torch.float64), small(dtype=torch.float64)
    y = classes_of(model, x)
    attack = PGD(norm=norm, eps=0.1 * scale, step_size=0.04 * scale, steps=5, random_start=False)
    torch.testing.assert_close(attacked(attack, model, x, y, "last").x_adv, written_out(x, y, norm), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_of_eps_from_the_image_is_fgsm(norm: Any) -> None:
    x, model = images(), small()
    y = classes_of(model, x)
    one = attacked(PGD(norm=norm, eps=0.2, step_size=0.2, steps=1, random_start=False), model, x, y)
    for ours, other in zip(one, attacked(FGSM(norm=norm, eps=0.2), model, x, y), strict=True):
        torch.testing.assert_close(ours, other)


def test_an_l1_step_moves_the_share_that_is_kept() -> None:
    x = inner(1)
    for kept, moving in ((0.01, 1), (0.25, 9), (1.0, 36)):
        attack = PGD(norm="l1", eps=1.0, step_size=0.2, steps=1, random_start=False, kept=kept)
        moved = (attacked(attack, two_classes(), x, torch.zeros(1, dtype=torch.int64), "last").x_adv - x).flatten()
        share = torch.where(W.abs() >= W.abs().sort().values[-moving], 0.2 / moving, 0.0) * W.sign()
        torch.testing.assert_close(moved, share)


def test_the_start_is_random_in_the_ball_and_optional() -> None:
    x = inner(200)
    still = {"eps": 0.1, "step_size": 0.0, "steps": 1}
    y = torch.zeros(200, dtype=torch.int64)
    moved = attacked(PGD(**still), two_classes(), x, y, "last").x_adv - x
    assert moved.abs().max() <= 0.1
    assert moved.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)  # of a uniform number
    assert torch.equal(attacked(PGD(**still, random_start=False), two_classes(), x, y, "last").x_adv, x)


def test_in_l2_the_first_start_is_near_and_others_are_anywhere_in_the_ball() -> None:
    x, y = inner(50), torch.zeros(50, dtype=torch.int64)
    still = {"norm": "l2", "eps": 0.1, "step_size": 0.0, "steps": 1}
    near, far = (attacked(PGD(**still, restarts=n), two_classes(), x, y, "last").norm for n in (1, 2))
    assert 0.005 < near.max() <= 0.01 * (1 + 1e-5)
    assert (far > near).all()
    assert 0.05 < far.max() <= 0.1 * (1 + 1e-5)


def test_more_restarts_can_only_raise_the_loss_and_the_count() -> None:
    x, model = images(20), small()
    y = classes_of(model, x)
    weak = {"eps": 0.08, "step_size": 0.02, "steps": 2}
    losses, fooled = [], []
    for restarts in (1, 2, 8):
        highest = attacked(PGD(**weak, restarts=restarts), model, x, y)
        assert highest.forwards.tolist() == [3 * restarts] * 20
        with torch.no_grad():
            losses.append(functional.cross_entropy(model(highest.x_adv), y, reduction="none"))
        fooled.append(attacked(PGD(**weak, restarts=restarts), model, x, y, "first success").success)
    assert (losses[0] <= losses[1]).all()
    assert (losses[1] <= losses[2]).all()
    assert losses[2].mean() > losses[0].mean() + 0.01
    assert (fooled[0] <= fooled[1]).all()
    assert (fooled[1] <= fooled[2]).all()


def test_the_margin_attacks_where_cross_entropy_is_flat() -> None:
    x, model = inner().float(), two_classes(scale=1e4).float()  # so sure of itself that its cross-entropy is 0 exactly
    y = (gap(x.double()) > 0).long()
    fields = {"eps": 0.2, "step_size": 0.05, "steps": 8, "random_start": False}
    blind = attacked(PGD(**fields), model, x, y, "first success")
    seeing = attacked(PGD(**fields, loss="margin"), model, x, y, "first success")
    assert (margin(model(x).detach(), y) < -120).all()  # and exp(-120) is 0 in float32
    assert not blind.success.any()
    assert seeing.success.all()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"eps": 8}, r"eps: a radius in pixel units \(pixels are in \[0, 1\]\), between 0 and 1, not 8"),
    ({"norm": "l2", "eps": -1.0}, "eps: a radius in pixel units .*, at least 0, not -1"),
    ({"step_size": -0.1}, "step_size: a length in pixel units, at least 0, not -0.1"),
    ({"step_size": float("inf")}, "step_size: a length in pixel units, a finite number, not inf"),
    ({"steps": 0}, "steps: a number of steps, at least 1, not 0"),
    ({"restarts": 0}, "restarts: a number of searches, at least 1, not 0"),
    ({"kept": 1.5}, "kept: a share of the entries, between 0 and 1, not 1.5"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGD(**fields)
