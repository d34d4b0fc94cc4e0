"""The boundary attack by hand, near the distance in closed form, and on models that tell only a class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.boundary import Boundary, Tally, adapted, proposal
from tests.attacks.optima import affine, smallest
from tests.attacks.records import run


class ClassAlone(nn.Module):
    """A model that says which class, and nothing more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


def test_it_comes_near_the_optimum() -> None:
    model, x, y = affine(classes=2, side=6, rows=8, scale=0.4)
    record, best = run(Boundary(steps=1500), model, x, y), smallest(model, x, "l2")
    assert record.success.all()
    assert (record.norm / best).min() >= 1 - 1e-4
    assert (record.norm / best).max() <= 1.06
    assert record.forwards.tolist() == [1500 + 1 + 16 + 12] * 8
    assert not record.backwards.any()


def test_the_class_alone_is_enough() -> None:
    model, x, y = affine(rows=4)
    told, guessed = run(Boundary(steps=100), model, x, y), run(Boundary(steps=100), ClassAlone(model), x, y)
    assert guessed.success.all()
    for one, other in zip(told, guessed, strict=True):
        assert torch.equal(one, other)


def test_a_step_by_hand() -> None:
    x, x_adv = torch.tensor([0.5, 0.5]).view(1, 1, 1, 2), torch.tensor([0.9, 0.5]).view(1, 1, 1, 2)
    noise = torch.tensor([7.0, 2.0]).view(1, 1, 1, 2)  # of which only what is across to the way home counts
    aside, ahead = torch.tensor([0.75]), torch.tensor([0.5])
    # 0.4 away; aside by 0.3, and (0.4, 0.3) is brought back to a length of 0.4: (0.32, 0.24)
    moved = proposal(x, x_adv, noise, aside, 0 * ahead)
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.82, 0.74]))
    torch.testing.assert_close(proposal(x, x_adv, noise, aside, ahead).flatten(), torch.tensor([0.66, 0.62]))
    # where the box cuts (0.72, 0.54) off at 0.5, that counts as ahead, and the half of 0.9 is still to be reached
    far = proposal(torch.full_like(x, 0.5), torch.tensor([1.4, 0.5]).view(1, 1, 1, 2), noise, aside, 0 * ahead)
    torch.testing.assert_close(far.flatten(), torch.tensor([1.0, 1.0]))


def test_steps_adapt_to_their_success() -> None:
    lengths, none = torch.tensor([0.1, 0.1, 0.1]), torch.zeros(3, dtype=torch.int64)
    tally = Tally(lengths, none, none)
    for k in range(20):
        outcome = torch.tensor([k % 4 != 0, k % 3 == 0, k % 10 == 0])  # 75 %, 35 % and 10 % fool
        before = tally
        tally, factor = adapted(tally, outcome, 0.2, 0.5)
        assert before.length.tolist() == lengths.tolist()
    torch.testing.assert_close(factor, torch.tensor([1.5, 1, 1 / 1.5]))
    torch.testing.assert_close(tally.length, lengths * factor)
    assert tally.asked.tolist() == [0, 0, 0]


def test_restarts_begin_at_other_noise_and_keep_the_best() -> None:
    model, x, y = affine(rows=6)
    once, thrice = run(Boundary(steps=200), model, x, y), run(Boundary(steps=200, restarts=3), model, x, y)
    assert (thrice.norm <= once.norm).all()
    assert (thrice.norm < once.norm).any()


def test_targeted_reaches_the_target() -> None:
    model, x, y = affine(classes=3, rows=6)
    record = run(Boundary(steps=100, targeted=True), model, x, (y + 1) % 3)
    assert record.success.sum() >= 4
    assert (classes_of_successes := model(record.x_adv).argmax(1)[record.success]).equal(((y + 1) % 3)[record.success])
    assert len(classes_of_successes)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("restarts", 0), ("draws", 0), ("aside", 2.0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Boundary(**{field: value})
