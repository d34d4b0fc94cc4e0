"""The search around an attack's rule: judging, policies, compaction, passes, restarts, stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.balls import Norm
from algorithms.ledger import Ledger
from algorithms.losses import Loss
from algorithms.search import Policy, Problem, Record, Visit, search, unperturbed
from algorithms.streams import Streams
from tests.networks import Affine, Counting, classes_of, images, margin, small
from tests.rules import Scripted, State, Wandering


def pixel_model() -> Affine:
    """Of one pixel v: the second logit exceeds the first by 10 (v - 0.5)."""
    return Affine(torch.tensor([[0.0], [10.0]]), torch.tensor([5.0, 0.0]))


def scripted(points: list[float], policy: Policy, start: float = 0.1, minimal: bool = False) -> tuple[float, bool]:
    """The value that the only row ends at, and whether it is a success. Its class is 0, below 0.5."""
    x, y = torch.full((1, 1, 1, 1), start), torch.zeros(1, dtype=torch.int64)
    attack = Scripted(tuple(points), minimal=minimal)
    record = search(attack, pixel_model(), x, y, rng=torch.Generator(), policy=policy)
    assert record.norm.item() == pytest.approx(abs(record.x_adv.item() - start), abs=1e-6)
    return round(record.x_adv.item(), 4), bool(record.success.item())


def test_first_success_is_the_first_and_failing_that_the_highest_loss() -> None:
    assert scripted([0.2, 0.7, 0.9, 0.3], "first success") == (0.7, True)
    assert scripted([0.2, 0.4, 0.3], "first success") == (0.4, False)
    assert scripted([0.2, 0.5, 0.3], "first success") == (0.5, False)  # a tie fools nobody
    assert scripted([0.2, 0.3, 0.8], "first success") == (0.8, True)  # where the last step led is judged too


def test_highest_loss_is_that_whether_it_fools_or_not() -> None:
    assert scripted([0.2, 0.7, 0.9, 0.3], "highest loss") == (0.9, True)
    assert scripted([0.2, 0.4, 0.3], "highest loss") == (0.4, False)
    assert scripted([0.05, 0.01, 0.0], "highest loss") == (0.05, False)  # never the clean image unasked


def test_last_is_where_the_last_step_led() -> None:
    assert scripted([0.2, 0.9, 0.3], "last") == (0.3, False)  # judged at 0.3, and then stays there
    assert scripted([0.9, 0.3], "last")[0] == 0.3
    x, y = torch.full((1, 1, 1, 1), 0.1), torch.zeros(1, dtype=torch.int64)
    record = search(Scripted((0.9, 0.3)), pixel_model(), x, y, rng=torch.Generator(), policy="last")
    assert (record.forwards.item(), record.backwards.item()) == (2, 2)  # no pass to judge the last
    assert search(Scripted((0.9, 0.3)), pixel_model(), x, y, rng=torch.Generator()).forwards.item() == 1


def test_a_minimal_attack_returns_its_smallest_success_or_the_clean_image() -> None:
    assert scripted([0.9, 0.6, 0.7, 0.2], "first success", minimal=True) == (0.6, True)
    assert scripted([0.4, 0.3], "first success", minimal=True) == (0.1, False)
    assert scripted([0.9, 0.6, 0.7, 0.2], "highest loss", minimal=True) == (0.6, True)
    assert scripted([0.4, 0.3], "highest loss", minimal=True) == (0.4, False)  # never a silently clean row
    assert scripted([0.1, 0.9], "first success", start=0.8, minimal=True) == (0.9, True)
    assert scripted([0.8, 0.9], "first success", start=0.8, minimal=True) == (0.8, True)


def test_a_success_is_not_given_up_for_a_failure_with_a_higher_loss() -> None:
    model = Affine(torch.tensor([[0.0], [0.16], [-14.3]]), torch.tensor([0.0, -0.04, 2.85]))  # at 0.9: (0, 0.1, -10)
    x, y = torch.full((1, 1, 1, 1), 0.1), torch.zeros(1, dtype=torch.int64)  # at 0.2: all logits about 0
    attack = Scripted((0.9, 0.2), minimal=True, loss="cross_entropy")
    record = search(attack, model, x, y, rng=torch.Generator(), policy="highest loss")
    assert (round(record.x_adv.item(), 4), record.success.item()) == (0.9, True)


def test_targets_are_reached_by_prediction() -> None:
    x, ones = torch.full((1, 1, 1, 1), 0.1), torch.ones(1, dtype=torch.int64)
    for points, expected in (([0.2, 0.7, 0.9, 0.3], (0.7, True)), ([0.2, 0.4, 0.3], (0.4, False))):
        attack = Scripted(tuple(points), targeted=True)
        record = search(attack, pixel_model(), x, ones, rng=torch.Generator())
        assert (round(record.x_adv.item(), 4), record.success.item()) == expected


def problem_set(count: int = 40) -> tuple[nn.Module, Tensor, Tensor]:
    model, x = small(dtype=torch.float64), images(count, dtype=torch.float64)
    return model, x, classes_of(model, x)


def run(attack: Attack, policy: Policy = "first success", model: nn.Module | None = None) -> Record:
    own, x, y = problem_set()
    return search(attack, model or own, x, y, rng=torch.Generator().manual_seed(0), policy=policy)


@pytest.mark.parametrize("attack", [Wandering(), PGD(norm="l2", eps=0.4, step_size=0.1, steps=6, restarts=2)], ids=type)
def test_rows_that_leave_change_nothing_but_the_cost(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    short = run(attack)
    monkeypatch.setattr(Problem, "without_done", lambda self, state: (self, state))
    long = run(attack)
    torch.testing.assert_close(short.x_adv, long.x_adv, rtol=0, atol=1e-12)
    assert torch.equal(short.success, long.success)
    assert 0 < short.success.sum() < 40
    assert (short.forwards <= long.forwards).all()
    assert short.forwards.sum() < 0.9 * long.forwards.sum()


@pytest.mark.parametrize("policy", ["first success", "highest loss", "last"])
def test_passes_are_those_that_a_counting_model_sees(policy: Policy) -> None:
    model = Counting(small(dtype=torch.float64))
    record = run(Wandering(), policy, model)
    assert int(record.forwards.sum()) == model.forwards
    assert int(record.backwards.sum()) == model.backwards
    if policy == "highest loss":
        assert record.forwards.tolist() == [2 * 7] * 40  # two restarts of six steps and a last look
        assert record.backwards.tolist() == [2 * 6] * 40


def test_a_row_costs_as_many_passes_as_it_took() -> None:
    model, x, y = problem_set()
    attack = PGD(norm="l2", eps=0.4, step_size=0.1, steps=6, random_start=False)
    record = search(attack, model, x, y, rng=torch.Generator())
    steps_needed = []
    for k in range(7):  # with k steps made, the (k + 1)-th forward pass sees the success
        part = PGD(norm="l2", eps=0.4, step_size=0.1, steps=max(k, 1), random_start=False)
        last = search(part, model, x, y, rng=torch.Generator(), policy="last").x_adv if k else x
        steps_needed.append(margin(model(last).detach(), y) > 0)
    fooled = torch.stack(steps_needed)
    first = torch.where(fooled.any(0), fooled.int().argmax(0), 6)
    assert record.forwards.tolist() == (first + 1).tolist()
    assert record.backwards.tolist() == (first + 1).clamp(max=6).tolist()


def test_restarts_draw_anew_and_keep_the_best() -> None:
    values = {}
    for restarts in (1, 2, 3):
        model, _, y = problem_set()
        record = run(Wandering(restarts=restarts), "highest loss")
        values[restarts] = nn.functional.cross_entropy(model(record.x_adv).detach(), y, reduction="none")
    assert (values[1] <= values[2]).all()
    assert (values[2] <= values[3]).all()
    assert (values[1] < values[3]).any()


def test_a_rule_sees_the_best_point_so_far_and_which_restart_it_is_in() -> None:
    seen = []

    @dataclass(frozen=True)
    class Looking(Attack):
        minimal = True
        norm: Norm = "linf"
        targeted: bool = False
        loss: Loss = "margin"
        steps: int = 3
        restarts: int = 2

        def start(self, problem: Problem) -> State:
            return State(problem.x)

        def step(self, problem: Problem, state: State, k: int) -> State:
            problem.gradient(torch.full_like(problem.x, (0.4, 0.9, 0.7)[k] - 0.1 * problem.restart))
            best = problem.best
            seen.append((problem.restart, *(round(float(part), 4) for part in best)))
            return state

    x, y = torch.full((1, 1, 1, 1), 0.1), torch.zeros(1, dtype=torch.int64)
    search(Looking(), pixel_model(), x, y, rng=torch.Generator())
    first = [(0, 0.4, 0.0, torch.inf), (0, 0.9, 1.0, 0.8), (0, 0.7, 1.0, 0.6)]
    assert seen == [*first, (1, 0.7, 1.0, 0.6), (1, 0.7, 1.0, 0.6), (1, 0.6, 1.0, 0.5)]


@pytest.mark.parametrize("policy", ["highest loss", "last"])
def test_a_stopped_row_takes_no_further_step(policy: Policy) -> None:
    model, x, y = problem_set()
    attack = PGD(norm="l2", eps=0.4, step_size=0.1, steps=6)
    visits: list[Visit] = []

    def stop(visit: Visit) -> Tensor:
        visits.append(visit)
        return visit.y == 0

    record = search(attack, model, x, y, rng=torch.Generator().manual_seed(0), policy=policy, stop=stop)
    free = search(attack, model, x, y, rng=torch.Generator().manual_seed(0), policy=policy)
    zero = y == 0
    assert 0 < zero.sum() < 40
    assert torch.equal(record.x_adv[zero], visits[0].x_adv[zero])  # the point at which it was stopped
    torch.testing.assert_close(record.x_adv[~zero], free.x_adv[~zero], rtol=0, atol=1e-12)
    assert (record.forwards[zero] == 1).all()
    assert torch.equal(record.forwards[~zero], free.forwards[~zero])
    assert all((visit.y != 0).all() for visit in visits[1:])
    loss = nn.functional.cross_entropy(model(leaf := visits[0].x_adv.clone().requires_grad_()), y, reduction="sum")
    torch.testing.assert_close(visits[0].gradient, torch.autograd.grad(loss, leaf)[0])


def test_rows_leave_for_success_and_for_the_stopping_rule() -> None:
    model, x, y = problem_set()
    rows: list[int] = []

    def stop(visit: Visit) -> Tensor:
        rows.append(len(visit.x))
        return visit.y == 0

    attack = PGD(norm="l2", eps=0.4, step_size=0.1, steps=2, random_start=False)
    wrong = torch.where(torch.arange(40) < 10, (y + 1) % 4, y)  # ten rows are successes at once
    record = search(attack, model, x, wrong, rng=torch.Generator(), stop=stop)
    stay = (torch.arange(40) >= 10) & (wrong != 0)
    assert rows == [40, stay.sum()]
    assert torch.equal(record.x_adv[:10], x[:10])


def test_streams_take_the_place_of_a_generator() -> None:
    model, x, y = problem_set()
    drawn = Streams.draw(torch.Generator().manual_seed(0), len(x))
    for one, other in zip(search(Wandering(), model, x, y, rng=drawn), run(Wandering()), strict=True):
        assert torch.equal(one, other)


@final
@dataclass(frozen=True)
class Misjudging(Attack):
    """Climbs something else than its loss."""

    norm: Norm = "linf"
    targeted: bool = False
    loss: Loss = "cross_entropy"
    steps: int = 2

    def start(self, problem: Problem) -> State:
        return State(problem.x)

    def step(self, problem: Problem, state: State, k: int) -> State:
        at = problem.gradient_of(problem.x * 0 + 0.3 * (k + 1), lambda logits: 1000.0 - 500.0 * k + 0 * logits[:, 0])
        assert at.value.tolist() == [1000.0 - 500.0 * k]
        return State(problem.x)


def test_points_are_compared_by_the_attacks_loss_whatever_it_climbs() -> None:
    x, y = torch.full((1, 1, 1, 1), 0.1), torch.zeros(1, dtype=torch.int64)
    record = search(Misjudging(), pixel_model(), x, y, rng=torch.Generator(), policy="highest loss")
    assert record.x_adv.item() == pytest.approx(0.6)  # not 0.3, where the other value was higher


def test_what_rules_get_is_of_the_images_type() -> None:
    x = images(3)
    model = small(dtype=torch.float64)
    seen: list[torch.dtype] = []

    @dataclass(frozen=True)
    class Looking(Attack):
        norm: Norm = "linf"
        targeted: bool = False
        loss: Loss = "dlr"
        steps: int = 1

        def start(self, problem: Problem) -> State:
            return State(problem.x)

        def step(self, problem: Problem, state: State, k: int) -> State:
            at, jacobian = problem.gradient(state.x_adv), problem.jacobian(state.x_adv, lambda logits: logits[:, :2])
            seen.extend(part.dtype for part in (*at, *jacobian, problem.predict(state.x_adv), problem.best.norm))
            return state

    search(Looking(), model, x, classes_of(model, x.double()), rng=torch.Generator())
    assert len(seen) == 8
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("policy", ["first success", "highest loss", "last"])
def test_weights_of_nan_are_an_error_under_every_policy(policy: Policy) -> None:
    model = pixel_model()
    model.weight.data.fill_(torch.nan)
    x, y = torch.full((2, 1, 1, 1), 0.1), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(FloatingPointError, match="no finite loss"):
        search(PGD(), model, x, y, rng=torch.Generator(), policy=policy)


def test_a_rule_that_never_looks_has_a_last_point() -> None:
    @dataclass(frozen=True)
    class Blind(Attack):
        norm: Norm = "linf"
        targeted: bool = False
        loss: Loss = "margin"
        steps: int = 1

        def start(self, problem: Problem) -> State:
            return State(problem.x)

        def step(self, problem: Problem, state: State, k: int) -> State:
            return State(1 - state.x_adv)

    model, x, y = problem_set()
    record = search(Blind(), model, x, y, rng=torch.Generator(), policy="last")
    assert torch.equal(record.x_adv, 1 - x)
    assert not record.forwards.any()


def test_no_attack_costs_nothing() -> None:
    x = images()
    record = unperturbed(x)
    assert record.x_adv is x
    assert not any(part.any() for part in record[1:])
    assert [part.dtype for part in record[1:]] == [torch.bool, torch.float32, torch.int64, torch.int64]


def test_points_of_the_rows_share_a_pass_and_cost_one_each() -> None:
    model, x = Counting(small()), images(3)
    y = classes_of(model.model, x)
    problem = Problem(model, Ledger(PGD(), x, y, "first success"), torch.arange(3), Streams(torch.zeros(3)), None)
    points = torch.stack([x, 1 - x, x / 2])
    calls: list[int] = []
    model.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    found = problem.values(points)
    assert calls == [9]
    torch.testing.assert_close(found, torch.stack([problem.loss(model.model(point)) for point in points]))
    assert problem.ledger.forwards.tolist() == [3] * 3
    assert not problem.ledger.success.any()  # none is a candidate
