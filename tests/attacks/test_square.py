"""Square by hand, without gradients, and against the best point of linear models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.square import Square, bump
from tests.attacks.optima import affine, smallest
from tests.attacks.records import norms_of, run
from tests.networks import Affine, Counting, classes_of, images, margin, small

NORMS = ["linf", "l2", "l1"]


class Rounded(nn.Module):
    """A model that gives no gradient: it runs outside of torch's graph and rounds its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.model(x) * 16).round() / 16


@pytest.mark.parametrize("norm", NORMS)
def test_it_raises_the_loss_of_a_model_without_gradients(norm: Any) -> None:
    model, x = Rounded(), images(12)
    y = classes_of(model, x)
    eps = {"linf": 0.1, "l2": 0.8, "l1": 4.0}[norm]
    record = run(Square(norm=norm, eps=eps, steps=150), model, x, y, "highest loss")
    assert (margin(model(record.x_adv), y) >= margin(model(x), y) - 1e-6).sum() >= 11
    assert record.success.sum() >= 4
    assert not record.backwards.any()


def test_in_linf_it_comes_near_the_best_corner() -> None:
    weight = torch.randn(36, generator=torch.Generator().manual_seed(0))
    model, x = Affine(torch.stack([0 * weight, weight])), images(4)
    best = ((x + 0.1 * weight.sign().view(1, 1, 6, 6)).clamp(0, 1) - x).flatten(1) @ weight
    record = run(Square(eps=0.1, steps=1500), model, x, torch.zeros(4, dtype=torch.int64), "highest loss")
    gain = (record.x_adv - x).flatten(1) @ weight
    assert (gain >= 0.97 * best).all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_it_uses_its_budget(norm: Any) -> None:
    x = images(4).round() if norm == "l2" else 0.4 + 0.2 * images(4)  # in l2 what the box takes goes to other pixels
    model = Affine(torch.randn(2, 36, generator=torch.Generator().manual_seed(0)))
    attack = Square(norm=norm, eps=0.5, steps=60)
    y = classes_of(model, x)
    record = run(attack, model, x, y, "highest loss")
    torch.testing.assert_close(norms_of(record.x_adv - x, norm), torch.full((4,), 0.5).double(), rtol=1e-4, atol=0)


def test_what_is_out_of_reach_stands() -> None:
    model, x, y = affine(classes=2, rows=12)
    reach = smallest(model, x, "linf")
    eps = float(reach.median()) * 1.03
    record = run(Square(eps=eps, steps=400), model, x, y)
    assert not (record.success & (reach > eps)).any()
    assert record.success[reach < 0.7 * eps].all()


def test_the_first_query_is_stripes_and_others_change_one_square() -> None:
    model, x = small(3), images(2, 3)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    run(Square(eps=0.02, steps=5), model, x, torch.zeros(2, dtype=torch.int64), "highest loss")
    up = seen[0] > x
    inner = (x > 0) & (x < 1)
    for row in range(2):
        for channel in range(3):
            for column in range(6):
                inside = inner[row, channel, :, column]
                assert len(up[row, channel, inside, column].unique()) <= 1
    changed = (seen[1] != seen[0]).any(1)  # the first query becomes the best point whatever it gives
    for rows in changed:
        down, across = rows.any(1).nonzero().flatten(), rows.any(0).nonzero().flatten()
        side = Square(steps=5).side(1, x.shape)
        assert down.max() - down.min() < side
        assert across.max() - across.min() < side


def test_no_query_is_wasted_on_what_is_known() -> None:
    model, x = Affine(torch.tensor([[0.0], [1.0]])), torch.full((1, 1, 1, 1), 0.5)
    seen: list[float] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(float(given[0].detach())))
    run(Square(eps=0.25, steps=20), model, x, torch.zeros(1, dtype=torch.int64), "highest loss")
    worse = seen[2:]  # by then both values of the one pixel are known, and 0.75 is the better one
    assert sorted(seen[:2]) == [0.25, 0.75]
    assert worse == [0.25] * 18


def test_the_sides_by_hand() -> None:
    attack = Square(steps=10000)
    shape = (1, 3, 32, 32)
    assert attack.side(0, shape) == 29  # sqrt(0.8 * 32 * 32) = 28.6
    assert attack.side(11, shape) == 20  # after 0.1 % of the queries half the area
    assert attack.side(9999, shape) == 1  # sqrt(0.8 / 512 * 1024) = 1.26
    assert Square(norm="l2", steps=10000).side(9999, shape) == 3
    assert Square(norm="l2", steps=10000).side(11, shape) == 19  # odd


def test_the_bump_by_hand() -> None:
    upper = [[0.25, 1.25, 0.25]]  # one row: 1 + 1/4 in the middle, 1/4 beside it
    lower = [[-0.25, -0.25, -0.25], [-0.25, -1.25, -0.25]]
    torch.testing.assert_close(bump(3), torch.tensor(upper + lower))
    torch.testing.assert_close(bump(1), torch.tensor([[-1.0]]))


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(classes=3, rows=6)
    record = run(Square(eps=0.5, steps=200, targeted=True), model, x, (y + 1) % 3)
    assert (model(record.x_adv).argmax(1) == (y + 1) % 3).all()


def test_a_done_row_asks_no_more() -> None:
    model = Counting(small())
    x = images(12)
    y = classes_of(model.model, x)
    record = run(Square(eps=0.2, steps=100), model, x, y)
    assert record.success.any()
    assert record.forwards[record.success].max() < 100
    assert model.forwards == record.forwards.sum()


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("share", 1.5), ("eps", -1.0)])
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Square(**{field: value})
