"""Dynamic adversarial training: the criterion's fall, who stops where, what it costs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.defenses.dynamic import Dynamic
from algorithms.search import Record, search
from algorithms.streams import Streams
from tests.defenses.differences import assert_slopes, batch, loss_by_hand, tiny
from tests.networks import Affine, Counting, classes_of, images, small, team

LINF, L2 = PGD(eps=0.1, step_size=0.025, steps=8), PGD(norm="l2", eps=0.5, step_size=0.1, steps=8)

MODEL = nn.Identity()  # where the criterion is given, no model decides it


def setting(rows: int = 24) -> tuple[nn.Module, Tensor, Tensor]:
    model, x = small(dtype=torch.float64), images(rows, dtype=torch.float64)
    return model, x, classes_of(model, x)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def perturbed(attack: Attack, c_max: float, **fields: Any) -> Record:
    model, x, y = setting()
    return Dynamic(attack=attack, c_max=c_max, **fields).perturb(model, x, y, rng=seeded())


def test_the_criterion_falls_to_zero_in_a_line() -> None:
    defense = Dynamic(c_max=0.5, until=0.8)
    expected = {0.0: 0.5, 0.2: 0.375, 0.4: 0.25, 0.6: 0.125, 0.8: 0.0, 1.0: 0.0}
    for progress, criterion in expected.items():
        assert defense.at(progress).criterion(MODEL) == pytest.approx(criterion, abs=1e-12)
    assert defense.at(0.9).at(0.4) == defense.at(0.4)
    assert Dynamic(until=0.0).criterion(MODEL) == 0


def test_the_criterion_may_stay_above_zero() -> None:
    defense = Dynamic(c_max=0.5, c_min=0.1, until=0.8)
    assert [defense.at(p).criterion(MODEL) for p in (0.0, 0.4, 0.8, 1.0)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


@pytest.mark.parametrize("box", [False, True])
def test_a_criterion_that_is_not_given_begins_at_the_mean_condition_after_fgsm(box: bool) -> None:
    model, x, y = setting()
    defense = Dynamic(attack=LINF, c_max=None, box=box)
    network = team(defense, model, x)
    assert defense.perturb(network, x, y, rng=seeded()).backwards.tolist() == [2] * 24  # weak ones, until it is known
    for rows in (slice(0, 8), slice(8, 24)):
        defense.loss(network, x[rows], x[rows], y[rows], rng=seeded())
    weak = search(FGSM(eps=0.1), model, x, y, rng=seeded(), policy="last").x_adv
    found = condition(model, x, weak, y, LINF)[0] if not box else boxed(model, x, weak, y)
    assert defense.settle(network) == {"criterion": pytest.approx(found.mean().item())}
    defense.loss(network, x.flip(3), x, y, rng=seeded())
    assert defense.at(0.4).settle(network) == {"criterion": pytest.approx(found.mean().item() / 2)}  # measured once
    given = Dynamic(attack=LINF, c_max=found.mean().item(), box=box)
    expected = given.perturb(model, x, y, rng=seeded()).backwards
    assert torch.equal(defense.perturb(network, x, y, rng=seeded()).backwards, expected)


def boxed(model: nn.Module, x: Tensor, point: Tensor, y: Tensor) -> Tensor:
    """The condition over images within 0.1, for each row."""
    slope = condition(model, x, point, y, LINF)[1]
    low, high = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    return torch.maximum(slope * (high - point), slope * (low - point)).flatten(1).sum(1)


def condition(model: nn.Module, x: Tensor, point: Tensor, y: Tensor, attack: Any) -> tuple[Tensor, Tensor]:
    """Equation 4 and the gradient, for each row."""
    point = point.detach().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(model(point), y, reduction="sum"), point)
    flat = slope.flatten(1)
    dual = flat.abs().sum(1) if attack.norm == "linf" else flat.norm(dim=1)
    return attack.eps * dual - ((point.detach() - x).flatten(1) * flat).sum(1), slope


def written_out(attack: Any, criterion: float, first_step_always: bool) -> tuple[Tensor, list[int]]:
    """Algorithm 1, one row after the other: where each ends, and after how many gradients."""
    model, x, y = setting()
    streams, ends, gradients = Streams.draw(seeded(), len(x)), [], []
    starts = PGD.start(attack, _Start(x, streams.fork(0))).x_adv  # type: ignore[arg-type]
    for row in range(len(x)):
        clean, point, taken = x[row : row + 1], starts[row : row + 1], 0
        for k in range(attack.steps):
            gap, slope = condition(model, clean, point, y[row : row + 1], attack)
            taken += 1
            if gap.item() <= criterion and not (k == 0 and first_step_always):
                break
            step = slope.sign() if attack.norm == "linf" else slope / slope.norm()
            delta = point + attack.step_size * step - clean
            delta = (
                delta.clamp(-attack.eps, attack.eps)
                if attack.norm == "linf"
                else delta * min(1, attack.eps / delta.norm())
            )
            point = (clean + delta).clamp(0, 1)
        ends.append(point)
        gradients.append(taken)
    return torch.cat(ends), gradients


class _Start:
    """All that PGD asks of a problem before its first step."""

    def __init__(self, x: Tensor, streams: Streams) -> None:
        self.x, self.streams, self.restart = x, streams, 0


@pytest.mark.parametrize("first_step_always", [True, False])
@pytest.mark.parametrize(("attack", "criterion"), [(LINF, 0.3), (L2, 0.2)], ids=["linf", "l2"])
def test_every_example_is_learnt_from_where_it_first_meets_the_criterion(
    attack: PGD, criterion: float, first_step_always: bool
) -> None:
    record = perturbed(attack, criterion, first_step_always=first_step_always)
    ends, gradients = written_out(attack, criterion, first_step_always)
    torch.testing.assert_close(record.x_adv, ends, rtol=0, atol=1e-10)
    assert record.backwards.tolist() == gradients
    assert min(gradients) < 4 < max(gradients)  # they do end at different steps


def test_an_infinite_criterion_takes_one_step_and_zero_takes_all() -> None:
    model, x, y = setting()
    one, all_ = perturbed(LINF, 1e9), perturbed(LINF, 0.0)
    single = search(PGD(eps=0.1, step_size=0.025, steps=1), model, x, y, rng=seeded(), policy="last")
    torch.testing.assert_close(one.x_adv, single.x_adv, rtol=0, atol=1e-12)
    assert one.backwards.tolist() == [2] * 24  # at the start, and where it may stop
    assert torch.equal(all_.x_adv, search(LINF, model, x, y, rng=seeded(), policy="last").x_adv)
    assert all_.backwards.tolist() == [8] * 24
    assert perturbed(LINF, 1e9, first_step_always=False).backwards.tolist() == [1] * 24


def test_a_lower_criterion_never_takes_fewer_steps() -> None:
    counts = [perturbed(LINF, criterion).backwards for criterion in (0.8, 0.4, 0.2, 0.1, 0.0)]
    assert all((more >= fewer).all() for fewer, more in itertools.pairwise(counts))
    assert counts[0].sum() < counts[2].sum() < counts[4].sum()


def test_examples_that_stop_are_not_computed_any_more() -> None:
    model, x, y = setting()
    counting = Counting(model)
    record = Dynamic(attack=LINF, c_max=0.3).perturb(counting, x, y, rng=seeded())
    assert (counting.forwards, counting.backwards) == (int(record.forwards.sum()), int(record.backwards.sum()))
    assert counting.backwards < 0.8 * 8 * 24


def test_at_the_best_image_of_the_ball_it_stops_though_the_criterion_is_zero() -> None:
    """With the box in FOSC nothing changes but the cost: what is left out would not move."""
    x, y = images(12), torch.zeros(12, dtype=torch.int64)
    model = Affine(torch.stack([torch.zeros(36), torch.linspace(-1, 1, 36)]))
    found, paper = (
        Dynamic(attack=LINF, c_max=0.0, box=box).perturb(model, x, y, rng=seeded()) for box in (True, False)
    )
    assert torch.equal(found.x_adv, paper.x_adv)
    assert paper.backwards.tolist() == [8] * 12  # clipped pixels hold the paper's condition above zero
    assert (found.backwards <= 8).all()
    longer = Dynamic(attack=PGD(eps=0.1, step_size=0.025, steps=30), c_max=0.0, box=True)
    assert (longer.perturb(model, x, y, rng=seeded()).backwards <= 9).all()


def test_no_example_depends_on_the_others() -> None:
    model, x, y = setting()
    together, apart = perturbed(L2, 0.2), []
    streams = Streams.draw(seeded(), 24)
    for rows in torch.arange(24).split([5, 19]):
        defense = Dynamic(attack=L2, c_max=0.2)
        apart.append(
            search(L2, model, x[rows], y[rows], rng=streams.select(rows), policy="last", stop=defense._stop(0.2))
        )
    torch.testing.assert_close(torch.cat([part.x_adv for part in apart]), together.x_adv, rtol=0, atol=1e-10)
    assert torch.equal(torch.cat([part.backwards for part in apart]), together.backwards)


def test_the_loss_by_hand() -> None:
    each = math.log(1 + math.exp(1))
    assert loss_by_hand(Dynamic()) == pytest.approx(each, abs=1e-12)
    assert loss_by_hand(Dynamic(hard_weighting=True)) == pytest.approx(each**2, abs=1e-12)


def test_slopes_are_those_of_differences_and_weights_are_constants() -> None:
    assert_slopes(Dynamic())
    _, x_adv, y = batch()
    weights = functional.cross_entropy(tiny()(x_adv), y, reduction="none").detach()

    def weighted(model: nn.Module) -> Tensor:
        return (weights * functional.cross_entropy(model(x_adv), y, reduction="none")).mean()

    assert_slopes(Dynamic(hard_weighting=True), weighted)


@pytest.mark.parametrize(
    "attack",
    [PGD(restarts=2), PGD(targeted=True), plugins.find(Attack, "ddn")()],
    ids=["restarts", "targets", "minimal"],
)
def test_attacks_that_do_not_climb_once_in_a_ball_are_refused(attack: Attack) -> None:
    with pytest.raises(ValueError, match=r"^attack: one search, without targets, in a ball"):
        Dynamic(attack=attack)


@pytest.mark.parametrize(
    ("field", "value"), [("c_max", -1.0), ("c_max", 0.05), ("c_min", -1.0), ("until", 1.5), ("progress", -0.1)]
)
def test_numbers_that_make_no_sense(field: str, value: Any) -> None:
    assert Dynamic(attack=FGSM()).attack == FGSM()
    with pytest.raises(ValueError, match=f"^{field}: "):
        Dynamic(**({"c_min": 0.1} | {field: value}))
