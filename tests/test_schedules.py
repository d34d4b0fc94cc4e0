"""Schedules: against torch's own, and what every schedule promises."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

from algorithms import plugins
from algorithms.schedules import Schedule
from algorithms.schedules.constant import Constant
from algorithms.schedules.cosine import Cosine
from algorithms.schedules.exponential import Exponential
from algorithms.schedules.one_cycle import OneCycle
from algorithms.schedules.piecewise import Piecewise

STEPS = 40
Make = Callable[[torch.optim.Optimizer], torch_schedulers.LRScheduler]


def theirs(make: Make, count: int) -> list[float]:
    """The learning rates of `count` steps, from one that starts at 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_piecewise_is_torchs_multi_step(gamma: float) -> None:
    schedule = Piecewise(milestones=(7 / STEPS, 12 / STEPS, 31 / STEPS), gamma=gamma)
    expected = theirs(lambda o: torch_schedulers.MultiStepLR(o, [7, 12, 31], gamma), STEPS)
    assert [schedule.factor(k / STEPS) for k in range(STEPS)] == pytest.approx(expected, rel=1e-12)


def test_exponential_is_torchs_once_an_epoch() -> None:
    expected = theirs(lambda o: torch_schedulers.ExponentialLR(o, 0.95), 100)
    for per_epoch in (1, 3, 7, 120):
        steps = 100 * per_epoch
        factors = [Exponential().factor(k / steps) for k in range(steps)]
        assert factors == pytest.approx([expected[k // per_epoch] for k in range(steps)], rel=1e-12)


def test_a_milestone_falls_on_its_own_step_whatever_the_length() -> None:
    for epochs in range(1, 60):
        for epoch in range(epochs):
            schedule = Piecewise(milestones=(epoch / epochs,))
            steps = [k for k in range(13 * epochs) if schedule.factor(k / (13 * epochs)) == 1]
            assert len(steps) == 13 * epoch


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_cosine_is_torchs(floor: float) -> None:
    expected = theirs(lambda o: torch_schedulers.CosineAnnealingLR(o, STEPS, floor), STEPS + 1)
    assert [Cosine(floor=floor).factor(k / STEPS) for k in range(STEPS + 1)] == pytest.approx(expected, abs=1e-12)


def test_cosine_with_a_warm_up_is_a_line_and_then_torchs() -> None:
    def make(optimizer: torch.optim.Optimizer) -> torch_schedulers.LRScheduler:
        line = torch_schedulers.LinearLR(optimizer, start_factor=0.1, total_iters=10)
        fall = torch_schedulers.CosineAnnealingLR(optimizer, STEPS - 10, 0.1)
        return torch_schedulers.SequentialLR(optimizer, [line, fall], [10])

    schedule = Cosine(floor=0.1, warmup=10 / STEPS)
    actual = [schedule.factor(k / STEPS) for k in range(STEPS + 1)]
    assert actual == pytest.approx(theirs(make, STEPS + 1), abs=1e-12)


@pytest.mark.parametrize(("shape", "name"), [("cosine", "cos"), ("linear", "linear")])
def test_one_cycle_is_torchs(shape: str, name: str) -> None:
    fields = {"max_lr": 1.0, "total_steps": 50, "pct_start": 0.3}  # its peak is step 0.3 * 50 - 1 = 14, its end step 49
    divisors = {"div_factor": 20, "final_div_factor": 50, "cycle_momentum": False}
    make = partial(torch_schedulers.OneCycleLR, anneal_strategy=name, **fields, **divisors)
    schedule = OneCycle(warmup=14 / 49, start_divisor=20, final_divisor=50, shape=shape)
    expected = theirs(make, 49)
    assert [schedule.factor(k / 49) for k in range(49)] == pytest.approx(expected, abs=1e-12)
    assert schedule.factor(1.0) == pytest.approx(1 / 1000, abs=1e-15)


def test_the_ends_of_warm_ups() -> None:
    for schedule in (Cosine(warmup=0.0), OneCycle(warmup=0.0)):
        assert schedule.factor(0.0) == 1
    for schedule in (Cosine(warmup=1.0), OneCycle(warmup=1.0)):
        assert schedule.factor(1.0) == 1
        assert schedule.factor(0.5) < 1


@pytest.mark.parametrize("name", plugins.names(Schedule))
def test_every_schedule_gives_factors_and_pickles(name: str) -> None:
    schedule = plugins.find(Schedule, name)()
    factors = [schedule.factor(k / 100) for k in range(101)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1, abs=1e-3)  # the learning rate that the user wrote is reached
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert [schedule.factor(k / 100) for k in range(101)] == factors


def test_constant_is_one() -> None:
    assert {Constant().factor(k / 7) for k in range(8)} == {1.0}


WRONG = [
    (Exponential, {"falls": 0}, "falls: a number of equal parts of the training, at least 1, not 0"),
    (Exponential, {"gamma": 1.5}, "gamma: the factor of a fall, between 0 and 1, not 1.5"),
    (Piecewise, {"milestones": (0.5, 0.25)}, "milestones: increasing shares of the training, not 0.5 before 0.25"),
    (Piecewise, {"milestones": (0.5, 0.5)}, "milestones: increasing shares of the training, not 0.5 before 0.5"),
    (Piecewise, {"milestones": (100, 150)}, "milestones: shares of the training, between 0 and 1, not 100"),
    (Piecewise, {"milestones": (-0.1,)}, "milestones: shares of the training, between 0 and 1, not -0.1"),
    (Piecewise, {"gamma": 10.0}, "gamma: the factor at a milestone, between 0 and 1, not 10"),
    (Piecewise, {"gamma": float("nan")}, "gamma: the factor at a milestone, between 0 and 1, not nan"),
    (Cosine, {"floor": 2.0}, "floor: the final factor, between 0 and 1, not 2"),
    (Cosine, {"warmup": 5.0}, "warmup: a share of the training, between 0 and 1, not 5"),
    (OneCycle, {"warmup": -1.0}, "warmup: a share of the training, between 0 and 1, not -1"),
    (OneCycle, {"start_divisor": 0.0}, "start_divisor: the highest learning rate over the first, at least 1, not 0"),
    (OneCycle, {"final_divisor": 0.5}, "final_divisor: the first learning rate over the last, at least 1, not 0.5"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), WRONG)
def test_wrong_fields_are_named(kind: type[Schedule], fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**fields)
