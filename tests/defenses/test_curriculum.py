"""The lessons by hand, and that each is the attack with so many steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.defenses.curriculum import Curriculum
from algorithms.search import search
from algorithms.streams import Streams
from algorithms.team import accompanied
from tests.defenses.differences import assert_slopes
from tests.networks import classes_of, images, small, team

ATTACK = PGD(norm="l2", eps=0.5, step_size=0.2, steps=10)

MODEL = nn.Identity()  # where progress alone decides the lesson, no model does


def setting(rows: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    model, x = small(dtype=torch.float64), images(rows, dtype=torch.float64)
    return model, x, classes_of(model, x)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_lessons_by_hand() -> None:
    plan = {0.0: 0, 0.03: 0, 0.05: 1, 0.08: 1, 0.2: 2, 0.4: 5, 0.62: 8, 0.79: 10, 0.8: 10, 1.0: 10}
    defense = Curriculum(attack=ATTACK, accuracy=None, until=0.8)
    assert {progress: defense.at(progress).lesson(MODEL) for progress in plan} == plan
    assert [Curriculum(attack=ATTACK, accuracy=None, until=0.0).at(p).lesson(MODEL) for p in (0.0, 1.0)] == [10, 10]
    assert defense.at(0.9).at(0.4) == defense.at(0.4)


def test_it_begins_with_clean_images_free_of_charge() -> None:
    model, x, y = setting()
    record = Curriculum(attack=ATTACK, accuracy=None).perturb(model, x, y, rng=seeded())
    assert torch.equal(record.x_adv, x)
    assert not record.forwards.any()


@pytest.mark.parametrize("progress", [0.16, 0.4, 0.9])
def test_a_lesson_is_the_attack_with_so_many_steps(progress: float) -> None:
    model, x, y = setting()
    lesson = Curriculum(attack=ATTACK, accuracy=None, until=0.8).at(progress)
    attack = PGD(norm="l2", eps=0.5, step_size=0.2, steps={0.16: 2, 0.4: 5, 0.9: 10}[progress])
    expected = search(attack, model, x, y, rng=seeded(), policy="last")
    for one, other in zip(lesson.perturb(model, x, y, rng=seeded()), expected, strict=True):
        assert torch.equal(one, other)


def test_mixing_gives_equal_parts_of_a_shard_every_lesson_so_far() -> None:
    model, x, y = setting()
    record = Curriculum(attack=ATTACK, accuracy=None, mixing=True).at(0.16).perturb(model, x, y, rng=seeded())
    assert record.backwards.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(record.x_adv[:2], x[:2])
    streams, rows = Streams.draw(seeded(), 6), torch.tensor([4, 5])
    attack = PGD(norm="l2", eps=0.5, step_size=0.2, steps=2)
    expected = search(attack, model, x[rows], y[rows], rng=streams.select(rows), policy="last")
    torch.testing.assert_close(record.x_adv[rows], expected.x_adv, rtol=0, atol=1e-12)
    few = Curriculum(attack=ATTACK, accuracy=None, mixing=True).at(1.0).perturb(model, x[:3], y[:3], rng=seeded())
    assert few.backwards.tolist() == [0, 3, 7]  # more lessons than rows: spread over them


class Sure(nn.Module):
    """Whatever the images, as many of them are predicted right as is said: the first rows, of class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.right = 0

    def forward(self, x: Tensor) -> Tensor:
        return functional.one_hot((torch.arange(len(x)) >= self.right).long(), 2).double()


def taught(defense: Curriculum, right: list[int]) -> list[int]:
    """The lesson after each step with so many of twenty examples right, halfway through a training."""
    model, defense = Sure(), defense.at(0.5)
    network = accompanied(model, defense.companions((1, 1, 1), 2, 20))
    x, y, lessons = torch.rand(20, 1, 1, 1), torch.zeros(20, dtype=torch.int64), []
    for model.right in right:
        before = defense.lesson(network)
        defense.loss(network, x, x, y, rng=seeded())
        assert defense.settle(network) == {"lesson": before}
        lessons.append(defense.lesson(network))
    return lessons


def test_a_lesson_ends_when_a_window_is_accurate_enough() -> None:
    """Of twenty: means of two steps are 14, 18, 19 and 10, and one step is the beginning of another window."""
    defense = Curriculum(attack=ATTACK, accuracy=0.9, window=2)
    assert taught(defense, [10, 18, 16, 20, 18, 20, 10, 10, 20]) == [0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_with_patience_it_also_waits_until_nothing_improves() -> None:
    """After 18 comes 19, which is better; then 18 and 19 are not; the next lesson has a best of its own."""
    defense = Curriculum(attack=ATTACK, accuracy=0.9, window=1, patience=2)
    assert taught(defense, [18, 19, 18, 19, 18, 18, 18]) == [0, 0, 0, 1, 1, 1, 2]
    assert taught(defense, [12, 11, 10, 9, 8]) == [0] * 5  # not accurate enough, however long it waits


def test_lessons_end_with_the_attacks_own_steps_and_come_to_them_in_any_case() -> None:
    defense = Curriculum(attack=PGD(steps=3), accuracy=0.0, window=1, until=0.8)
    assert taught(defense, [0] * 6) == [1, 2, 3, 3, 3, 3]
    model, x, _ = setting()
    network = team(defense, model, x)
    assert defense.at(0.79).lesson(network) == 0
    assert defense.at(0.8).lesson(network) == 3


def test_the_loss_by_differences() -> None:
    assert_slopes(Curriculum(accuracy=None))


def test_an_attack_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^attack: one that has a field `steps`"):
        Curriculum(attack=FGSM())
    with pytest.raises(ValueError, match=r"^until: "):
        Curriculum(until=1.5)
