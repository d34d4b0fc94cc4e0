"""The lessons by hand, and that each is the attack with so many steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.defenses.curriculum import Curriculum
from algorithms.search import search
from algorithms.streams import Streams
from tests.defenses.differences import assert_slopes
from tests.networks import classes_of, images, small

ATTACK = PGD(norm="l2", eps=0.5, step_size=0.2, steps=10)


def setting(rows: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    model, x = small(dtype=torch.float64), images(rows, dtype=torch.float64)
    return model, x, classes_of(model, x)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_lessons_by_hand() -> None:
    plan = {0.0: 0, 0.03: 0, 0.05: 1, 0.08: 1, 0.2: 2, 0.4: 5, 0.62: 8, 0.79: 10, 0.8: 10, 1.0: 10}
    defense = Curriculum(attack=ATTACK, until=0.8)
    assert {progress: defense.at(progress).lesson for progress in plan} == plan
    assert [Curriculum(attack=ATTACK, until=0.0).at(p).lesson for p in (0.0, 1.0)] == [10, 10]
    assert defense.at(0.9).at(0.4) == defense.at(0.4)


def test_it_begins_with_clean_images_free_of_charge() -> None:
    model, x, y = setting()
    record = Curriculum(attack=ATTACK).perturb(model, x, y, rng=seeded())
    assert torch.equal(record.x_adv, x)
    assert not record.forwards.any()


@pytest.mark.parametrize("progress", [0.16, 0.4, 0.9])
def test_a_lesson_is_the_attack_with_so_many_steps(progress: float) -> None:
    model, x, y = setting()
    lesson = Curriculum(attack=ATTACK, until=0.8).at(progress)
    attack = PGD(norm="l2", eps=0.5, step_size=0.2, steps={0.16: 2, 0.4: 5, 0.9: 10}[progress])
    expected = search(attack, model, x, y, rng=seeded(), policy="last")
    for one, other in zip(lesson.perturb(model, x, y, rng=seeded()), expected, strict=True):
        assert torch.equal(one, other)


def test_mixing_gives_equal_parts_of_a_shard_every_lesson_so_far() -> None:
    model, x, y = setting()
    record = Curriculum(attack=ATTACK, mixing=True).at(0.16).perturb(model, x, y, rng=seeded())
    assert record.backwards.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(record.x_adv[:2], x[:2])
    streams, rows = Streams.draw(seeded(), 6), torch.tensor([4, 5])
    attack = PGD(norm="l2", eps=0.5, step_size=0.2, steps=2)
    expected = search(attack, model, x[rows], y[rows], rng=streams.select(rows), policy="last")
    torch.testing.assert_close(record.x_adv[rows], expected.x_adv, rtol=0, atol=1e-12)
    few = Curriculum(attack=ATTACK, mixing=True).at(1.0).perturb(model, x[:3], y[:3], rng=seeded())
    assert few.backwards.tolist() == [0, 3, 7]  # more lessons than rows: spread over them


def test_the_loss_by_differences() -> None:
    assert_slopes(Curriculum())


def test_an_attack_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^attack: one that has a field `steps`"):
        Curriculum(attack=FGSM())
    with pytest.raises(ValueError, match=r"^until: "):
        Curriculum(until=1.5)
