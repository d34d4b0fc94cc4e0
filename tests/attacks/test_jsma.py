"""JSMA by hand, and near the fewest entries of linear models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algorithms.attacks.jsma import JSMA
from tests.attacks.optima import affine, smallest
from tests.attacks.records import run
from tests.networks import Affine


def by_hand(bias: float) -> tuple[Affine, torch.Tensor, list[list[float]]]:
    """Slopes of the two logits for four pixels of 0.25, and what the model is shown."""
    model, seen = Affine(torch.tensor([[-1.0, 0, -2, 1], [1, 3, 1, 2]]), torch.tensor([bias, 0.0])), []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().flatten().tolist()))
    return model, torch.full((1, 1, 2, 2), 0.25), seen


def test_the_pairs_by_hand() -> None:
    # products of the sums (1 3 1 2) and, for the other class downwards, (1 0 2 -1): pixels 2 and 3 make 4 * 2 = 8,
    # 1 and 3 make 2 * 3 = 6, 1 and 2 make 4, 3 and 4 make 3, and with the fourth the others have no positive sum
    model, x, seen = by_hand(bias=9.0)
    run(JSMA(direction="up"), model, x, torch.tensor([0]))
    assert seen == [[0.25] * 4, [0.25] * 4, [0.25, 1, 1, 0.25]]  # of what is left, pixels 1 and 4, no pair is admitted
    model, x, seen = by_hand(bias=9.0)
    run(JSMA(direction="up", step_size=0.5, steps=2), model, x, torch.tensor([0]))
    # then pixels 2 and 3 have half a step left: (2 3 1 4) / 4 and (2 0 2 -2) / 4, of which 1 and 3 make 3 * 4, the most
    assert seen[2:] == [[0.25, 0.75, 0.75, 0.25], [0.75, 0.75, 1, 0.25]]


def test_an_entry_that_can_hardly_move_is_left() -> None:
    model, x, seen = by_hand(bias=9.0)
    x[..., 1, 0] = 0.99  # the third pixel, one of the best pair by its slopes; 1 and 2 make 4, 2 and 3 next to nothing
    run(JSMA(direction="up", steps=1), model, x, torch.tensor([0]))
    assert seen[2] == pytest.approx([1, 1, 0.99, 0.25])


def test_it_comes_near_the_fewest_entries() -> None:
    model, x, y = affine(rows=8)
    record, best = run(JSMA(), model, x, y), smallest(model, x, "l0")
    assert record.success.all()
    assert (record.norm >= best).all()
    assert (record.norm <= 2 * best + 2).all()
    assert (record.backwards == 2 * (record.forwards - 1)).all()
    up, down = (run(JSMA(direction=sign), model, x, y).norm for sign in ("up", "down"))
    assert torch.equal(record.norm, torch.minimum(up, down))


def test_a_run_that_cannot_be_the_best_is_given_up() -> None:
    model, x, y = affine(rows=8)
    record, best = run(JSMA(), model, x, y), smallest(model, x, "l0")
    two = record.norm == 2  # found at once: the other runs end with their first look
    assert two.any()
    assert (record.forwards[two] <= 2 * 9 + 3).all()
    few = run(JSMA(rivals=1, direction="up"), model, x, y)
    assert (few.norm >= record.norm).all()
    assert (few.forwards < record.forwards).all()
    assert not run(JSMA(share=0.0), model, x, y).success.any()
    assert best.max() > 2


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(rows=8)
    target = (y + 3) % 10
    record = run(JSMA(targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("step_size", 0.0), ("step_size", 2.0), ("share", 1.5), ("rivals", -1)]
)
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        JSMA(**{field: value})
