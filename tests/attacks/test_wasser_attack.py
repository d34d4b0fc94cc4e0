"""WasserAttack: feasible by a linear program, near its optimum on linear scores, and what the published form does."""

from __future__ import annotations

from typing import Any

import cvxpy
import pytest
import torch
from torch import Tensor, nn

from algorithms import transport
from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.search import Record, search
from tests.networks import Affine, classes_of, images, small
from tests.transport.oracle import best_gain, costs, digits, distances

RNG = torch.Generator()
SLOPE = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def score(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Affine:
    """Two classes, and a gap between their logits that is linear in the image."""
    return Affine(torch.stack([torch.zeros_like(SLOPE), scale * SLOPE]).to(dtype))


def attacked(attack: WasserAttack, model: Any, x: Tensor, y: Tensor | None = None) -> Record:
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return search(attack, model, x, y, rng=torch.Generator().manual_seed(0), policy="highest loss")


@pytest.mark.parametrize("eps", [0.3, 0.5])
@pytest.mark.parametrize("power", [1, 2])
def test_it_comes_near_the_optimum_of_a_linear_score_and_never_above(power: Any, eps: float) -> None:
    x = digits(2)[0]
    for scale in (0.1, 10.0):
        record = attacked(WasserAttack(eps=eps, power=power, steps=50), score(scale), x)
        for image, found in zip(x, record.x_adv, strict=True):
            share = ((found - image).flatten() @ SLOPE).item() / best_gain(image, SLOPE, eps, power)
            assert 0.9 <= share <= 1 + 1e-5


class Likeness(nn.Module):
    """The gap between two logits is minus the squared distance to an image: concave, with gradients that turn."""

    def __init__(self, goal: Tensor) -> None:
        super().__init__()
        self.goal = goal

    def forward(self, x: Tensor) -> Tensor:
        gap = -((x - self.goal) ** 2).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(gap), gap], 1)


def nearest(x: Tensor, goal: Tensor, eps: float) -> float:
    """The least squared distance to `goal` of an image in the ball, by a convex solver over whole plans."""
    plan, image = cvxpy.Variable((64, 64), nonneg=True), x.flatten().numpy()
    after, price = cvxpy.sum(plan, axis=0), cvxpy.sum(cvxpy.multiply(plan, costs(8, 8, 2)))
    limits = [cvxpy.sum(plan, axis=1) == image, after <= 1, price <= eps * x.sum().item()]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(after - goal.flatten().numpy())), limits)
    return float(problem.solve(solver=cvxpy.CLARABEL))


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_it_comes_near_the_optimum_of_a_concave_score_and_never_above(eps: float) -> None:
    x = digits(1)[0]
    goal = torch.roll(x, (1, 2), (2, 3))
    found = attacked(WasserAttack(eps=eps, window=0), Likeness(goal), x).x_adv
    before, after = ((image - goal).square().sum().item() for image in (x, found))
    share = (before - after) / (before - nearest(x, goal, eps))
    assert 0.95 <= share <= 1 + 1e-6


@pytest.mark.parametrize("encoding", ["softmax", "tanh"])
@pytest.mark.parametrize("window", [3, 0])
def test_what_it_returns_is_in_the_ball_and_has_the_images_mass(encoding: Any, window: int) -> None:
    x = digits(4)[0].float()
    for power, metric in ((1, "l1"), (2, "l2")):
        ball = {"eps": 0.3, "power": power, "metric": metric, "window": window}
        attack = WasserAttack(**ball, encoding=encoding, steps=12)
        record = attacked(attack, score(5.0, torch.float32), x)
        assert ((record.x_adv >= 0) & (record.x_adv <= 1)).all()
        error = (record.x_adv.double().sum((1, 2, 3)) / x.double().sum((1, 2, 3)) - 1).abs()
        assert (error < 1e-6).all()
        assert max(distances(x, record.x_adv, power, metric)) <= 0.3 * (1 + 1e-5)
        assert (record.norm > 0.1).all()


def test_channels_share_one_budget_and_keep_their_own_mass() -> None:
    model, x = small(3, 5), images(4, 3)
    y = classes_of(model, x)
    record = attacked(WasserAttack(eps=0.2, steps=10), model, x, y)
    torch.testing.assert_close(record.x_adv.sum((2, 3)), x.sum((2, 3)), rtol=1e-5, atol=1e-5)
    found = distances(x, record.x_adv, 2)
    assert max(found) <= 0.2 * (1 + 1e-4)
    assert min(found) > 0.05


def test_the_published_form_leaves_the_ball_or_stands_still_and_the_audit_says_so() -> None:
    x = digits(4)[0]
    y, rng = torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(0)
    published = {"encoding": "tanh", "repair": False, "eps": 0.1, "steps": 30, "step_size": 0.1, "loss": "margin"}
    steep = WasserAttack(**published).audit(score(10.0), x, y, rng=rng)
    assert (steep.price > 2).all()
    assert (steep.sources > 0.1).all()
    still = WasserAttack(**(published | {"step_size": 0.01})).audit(score(0.1), x, y, rng=rng)
    assert (still.sources < 0.05).all()
    x_adv = attacked(WasserAttack(**published), score(10.0), x).x_adv
    assert (transport.precision_error(x, x_adv) > 1e-3).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_the_audit_of_the_default_finds_nothing_but_brightness() -> None:
    x = digits(4)[0]
    found = WasserAttack(eps=0.3, steps=10).audit(score(), x, torch.zeros(4, dtype=torch.int64), rng=torch.Generator())
    assert (found.precision < 1e-12).all()
    assert (found.sources < 1e-12).all()
    assert (found.price <= 1 + 1e-12).all()
    assert (found.above < 0.2).all()


def test_without_penalties_a_step_of_tanh_follows_the_gradient_of_the_loss() -> None:
    """Adam's first step is the gradient's sign: here of the score for each entry of the plan, worked out by hand."""
    x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    model = Affine(torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64))
    none = {"row_penalty": 0.0, "box_penalty": 0.0, "cost_penalty": 0.0}
    attack = WasserAttack(encoding="tanh", repair=False, steps=1, step_size=0.1, window=0, loss="margin", **none)
    x_adv = attacked(attack, model, x).x_adv.flatten()
    half, away = torch.zeros(1).double(), torch.atanh(torch.tensor(2 * 0.002 * 0.5 - 1).double())
    after = [
        (0.5 * (torch.tanh(half + s) + 1) + 0.5 * (torch.tanh(away + s) + 1)).item() for s in (0.1, -0.1)
    ]  # mass that arrives in the first pixel is worth 1, in the second -1
    torch.testing.assert_close(x_adv.tolist(), after)


@pytest.mark.parametrize("encoding", ["softmax", "tanh"])
def test_an_image_of_zeros_and_a_radius_of_zero_stay(encoding: Any) -> None:
    x = digits(3)[0].clone()
    x[1] = 0
    assert torch.equal(attacked(WasserAttack(encoding=encoding, steps=4), score(), x).x_adv[1], x[1])
    assert torch.equal(attacked(WasserAttack(encoding=encoding, steps=4, eps=0.0), score(), x).x_adv, x)


def test_a_window_larger_than_the_image_is_the_whole_image() -> None:
    x = digits(2)[0]
    wide, whole = (attacked(WasserAttack(window=window, steps=5), score(), x).x_adv for window in (99, 0))
    assert torch.equal(wide, whole)


def test_negative_pixels_are_refused() -> None:
    x, y = digits(2)[0] - 0.1, torch.zeros(2, dtype=torch.int64)
    for look in (lambda: attacked(WasserAttack(), score(), x), lambda: WasserAttack().audit(score(), x, y, rng=RNG)):
        with pytest.raises(ValueError, match=r"x: pixels in \[0, 1\] expected, got -0.1 to 0.9"):
            look()


def test_a_growing_radius_is_kept_at_every_step() -> None:
    x = digits(2)[0]
    for steps, radius in ((5, 0.02), (6, 0.04), (11, 0.08)):
        record = attacked(WasserAttack(eps=0.02, growth=2.0, every=5, steps=steps), score(), x)
        found = distances(x, record.x_adv, 2)
        assert max(found) <= radius * (1 + 1e-6)
        assert min(found) > radius / 2


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"eps": -1.0}, "eps: a cost of transport per unit of mass, .*, at least 0, not -1"),
    ({"window": 4}, "window: an odd number of pixels, or 0 for the whole image, not 4"),
    ({"steps": 0}, "steps: a number of steps, at least 1, not 0"),
    ({"entropy": 0.0}, "entropy: a weight, between 1e-06 and 1, not 0"),
    ({"step_size": -0.1}, "step_size: a length in the free variables' units, at least 0, not -0.1"),
    ({"sweeps": 0}, "sweeps: a number of sweeps, at least 1, not 0"),
    ({"row_penalty": -1.0}, "row_penalty: a factor on a violation, at least 0, not -1"),
    ({"box_penalty": -1.0}, "box_penalty: a factor on a violation, at least 0, not -1"),
    ({"cost_penalty": -1.0}, "cost_penalty: a factor on a violation, at least 0, not -1"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WasserAttack(**fields)
