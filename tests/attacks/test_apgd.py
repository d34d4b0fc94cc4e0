"""APGD against closed forms, its schedule by hand, and its targeted loss by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from algorithms.attacks.apgd import APGD, checkpoints, runner_up, targeted_dlr
from tests.attacks.optima import affine, smallest, two_pixels
from tests.attacks.records import run
from tests.networks import Affine, classes_of, images, margin, small


def test_the_checkpoints_are_the_published_ones() -> None:
    assert checkpoints(100, "linf") == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10, "l2") == (3, 5, 6, 7, 8, 9, 10)  # rounded up, each once
    assert checkpoints(50, "l1") == tuple(range(2, 50, 2))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_fools_exactly_the_rows_within_reach(norm: Any) -> None:
    model, x, y = affine(classes=2, rows=12)
    reach = smallest(model, x, norm)
    for share in (0.97, 1.03):  # of the radius at which half of the rows fall
        eps = float(reach.median()) * share
        clear = (reach - eps).abs() > 0.02 * eps
        record = run(APGD(norm=norm, eps=eps, steps=60, loss="margin"), model, x, y)
        assert record.success[clear].tolist() == (reach < eps)[clear].tolist()
        assert clear.sum() >= 10


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_reaches_the_highest_loss_of_ball_and_box(norm: Any) -> None:
    weight = torch.randn(36, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model, x = Affine(torch.stack([0 * weight, weight])), images(6, dtype=torch.float64)
    eps = {"linf": 0.2, "l2": 0.8, "l1": 2.0}[norm]
    record = run(APGD(norm=norm, eps=eps), model, x, torch.zeros(6, dtype=torch.int64), "highest loss")
    gain = (record.x_adv - x).flatten(1) @ weight
    torch.testing.assert_close(gain, best_gain(x, weight, norm, eps), rtol=0.05 if norm == "l1" else 1e-4, atol=0)


def best_gain(x: Tensor, weight: Tensor, norm: str, eps: float) -> Tensor:
    """The largest <weight, r> over the ball and the box, by a convex solver."""
    cvxpy = pytest.importorskip("cvxpy")
    order = {"linf": "inf", "l2": 2, "l1": 1}[norm]
    gains = []
    for row in x.flatten(1).numpy():
        r = cvxpy.Variable(len(row))
        limits = [cvxpy.norm(r, order) <= eps, row + r >= 0, row + r <= 1]
        gains.append(cvxpy.Problem(cvxpy.Maximize(weight.numpy() @ r), limits).solve(solver="CLARABEL"))
    return torch.tensor(gains, dtype=x.dtype)


def written_out(model: torch.nn.Module, clean: Tensor, y: Tensor, points: list[Tensor], at: set[int]) -> None:
    """Algorithm 1 for one image in linf, eps 0.1: appends to `points`, which holds the start, what it evaluates."""
    here, before, length, halved = points[0], points[0], 0.2, False
    best, best_loss, best_slope = here, -torch.inf, torch.zeros_like(here)
    last, best_then, rises, then = torch.inf, -torch.inf, 0, 0
    for k in range(100):
        point = here.clone().requires_grad_()
        loss = functional.cross_entropy(model(point), y)
        loss.backward()
        slope, value = point.grad, float(loss.detach())
        rises, last = rises + (value > last), value
        if value > best_loss:
            best, best_loss, best_slope = here, value, slope
        if k in at:
            halved = rises < 0.75 * (k - then) or (not halved and best_loss <= best_then)
            if halved:
                length, here, slope, last = length / 2, best, best_slope, best_loss
            best_then, rises, then = best_loss, 0, k
        moved = inside(clean, here + length * slope.sign())
        if k:
            moved = inside(clean, here + 0.75 * (moved - here) + 0.25 * (here - before))
        here, before = moved, here
        points.append(here)


def inside(clean: Tensor, x: Tensor) -> Tensor:
    return torch.min(torch.max(x, clean - 0.1), clean + 0.1).clamp(0, 1)


class Wavy(torch.nn.Module):
    """So bent that steps overshoot and stall."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.inner = torch.nn.Parameter(2 * torch.randn(36, 12, generator=rng, dtype=torch.float64))
        self.outer = torch.nn.Parameter(torch.randn(12, 3, generator=rng, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ self.inner) @ self.outer


@pytest.mark.parametrize("row", range(4))
def test_it_is_the_algorithm_written_out(row: int) -> None:
    model, x = Wavy(), images(4, dtype=torch.float64)[row : row + 1]
    y, seen = classes_of(model, x), []
    handle = model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    run(APGD(eps=0.1), model, x, y, "highest loss")
    handle.remove()
    points = [seen[0]]
    written_out(model, x, y, points, at={22, 41, 57, 70, 80, 87, 93, 99})
    torch.testing.assert_close(torch.cat(seen), torch.cat(points), rtol=0, atol=1e-12)


class Steps:
    """What the attack evaluates, watched from outside."""

    def __init__(self, model: Affine) -> None:
        self.points: list[float] = []
        model.register_forward_pre_hook(lambda _, given: self.points.append(float(given[0].flatten()[0].detach())))


def test_the_first_steps_by_hand() -> None:
    model, x, y = two_pixels(1.0, 0.0, bias=-5.0, x=(0.5, 0.5))  # the first pixel alone counts, and should grow
    seen = Steps(model)
    run(APGD(eps=0.1, steps=30), model, x, y)
    start = seen.points[0]
    assert abs(start - 0.5) <= 0.1
    assert seen.points[1] == pytest.approx(0.6)  # a step of 2 eps, and back onto the ball
    assert all(point == pytest.approx(0.6) for point in seen.points[2:])


def test_a_stalled_search_halves_its_step_and_returns_to_its_best_point() -> None:
    """With |x - 0.5| as the loss to lose, steps of 2 eps jump over the middle until they are short enough."""

    class Valley(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.points: list[float] = []

        def forward(self, x: Tensor) -> Tensor:
            self.points.append(float(x.flatten()[0].detach()))
            depth = -(x.flatten(1)[:, :1] - 0.47).abs() - 1
            return torch.cat([torch.zeros_like(depth), depth], 1)

    model, x = Valley(), torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    attack = APGD(eps=0.1, steps=100, loss="margin")
    record = run(attack, model, x, torch.zeros(1, dtype=torch.int64))
    assert float(record.x_adv) == pytest.approx(0.47, abs=2e-3)
    moves = torch.tensor(model.points).diff().abs()
    assert moves[23:41].max() <= 0.15  # half of 0.2 and a quarter of the move before
    best = min(model.points[:23], key=lambda point: abs(point - 0.47))
    assert abs(model.points[23] - best) <= 0.1 * 0.75 + 0.25 * 0.2 + 1e-9  # one step from the best point


def test_in_l1_pixels_that_the_box_holds_take_no_part() -> None:
    """Of 20 pixels 16 are at 1 already and would grow most; a step moves those with the largest slopes."""
    weight = torch.cat([torch.full((16,), 5.0), torch.tensor([1.0, 1.1, 1.2, 1.3])]).double()
    model = Affine(torch.stack([0 * weight, weight]))
    x = torch.cat([torch.ones(16), torch.full((4,), 0.2)]).double().view(1, 1, 4, 5)
    attack = APGD(norm="l1", eps=0.7, steps=8, wide_start=False)
    record = run(attack, model, x, torch.zeros(1, dtype=torch.int64), "highest loss")
    gain = (record.x_adv - x).flatten(1) @ weight
    assert gain >= 0.97 * 0.7 * 1.3


def test_the_targeted_loss_by_hand() -> None:
    logits = torch.tensor([[2.0, 5.0, 1.0, 3.0, -1.0]])
    value = targeted_dlr(logits, torch.tensor([1]), torch.tensor([3]))
    assert value.tolist() == pytest.approx([(3 - 5) / (5 - (2 + 1) / 2)])
    assert targeted_dlr(logits[:, :3], torch.tensor([1]), torch.tensor([0])).tolist() == pytest.approx([-3 / 3.5])
    assert runner_up(logits, torch.tensor([1])).tolist() == [3]
    assert runner_up(logits, torch.tensor([0])).tolist() == [1]


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_targeted_reaches_the_target(loss: Any) -> None:
    model, x, y = affine(rows=8, scale=0.5)
    target = (y + 3) % 10
    record = run(APGD(eps=0.3, steps=30, loss=loss, targeted=True), model, x, target)
    assert (model(record.x_adv).argmax(1) == target).all()


def test_dlr_does_not_mind_how_logits_are_scaled() -> None:
    model, x = small(dtype=torch.float64), images(12, dtype=torch.float64)
    y = classes_of(model, x)
    sure = torch.nn.Sequential(model, torch.nn.Linear(4, 4, bias=False, dtype=torch.float64))
    sure[1].weight = torch.nn.Parameter(1e6 * torch.eye(4, dtype=torch.float64))  # its softmax is saturated

    def reached(network: torch.nn.Module, loss: Any) -> float:
        with torch.no_grad():
            found = run(APGD(eps=0.1, steps=20, loss=loss), network, x, y, "highest loss").x_adv
            return float(margin(model(found), y).mean())

    assert reached(sure, "dlr") == pytest.approx(reached(model, "dlr"), rel=0.01)
    assert reached(sure, "dlr") > reached(sure, "cross_entropy") + 0.1


def test_nothing_outside_the_ball_counts() -> None:
    model, x, y = affine(rows=8, scale=0.5)
    eps = float(smallest(model, x, "l1").min()) * 0.9
    record = run(APGD(norm="l1", eps=eps, steps=50), model, x, y)  # the wide start fools all rows at 3 eps
    assert not record.success.any()
    assert (record.norm <= eps * (1 + 1e-5)).all()


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("restarts", 0), ("eps", -1.0)])
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        APGD(**{field: value})
