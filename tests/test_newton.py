"""Newton's steps to a confidence, against numbers worked by hand, closed forms and finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from algorithms import newton
from tests.networks import Affine, images


def binary(slope: float = 2.0, bias: float = -10.0) -> Affine:
    """Two classes; the second's logit minus the first's is slope * x_0 + bias."""
    weight = torch.tensor([[0.0, 0.0], [slope, 0.0]], dtype=torch.float64)
    return Affine(weight, torch.tensor([0.0, bias], dtype=torch.float64))


def walk(model: nn.Module, x: Tensor, confidence: float, steps: int) -> list[float]:
    """Probabilities of class 1 on the way to a confidence, by the plain step without a push."""
    target, reached = torch.ones(1, dtype=torch.int64), []
    for _ in range(steps):
        x = x.detach().requires_grad_()
        value = newton.log_probability(model(x), target)
        (slope,) = torch.autograd.grad(value.sum(), x)
        x = x.detach() + newton.newton_step(value, torch.tensor([math.log(confidence)]).double(), slope, push=0.0)
        reached.append(float(newton.log_probability(model(x), target).detach().exp()))
    return reached


def test_the_iterates_by_hand() -> None:
    """Newton's method for log sigma(s) = log 0.95 from s = -10."""
    reached = walk(binary(), torch.zeros(1, 1, 1, 2, dtype=torch.float64), 0.95, 5)
    assert reached == pytest.approx([0.487304, 0.777523, 0.895839, 0.937929, 0.948895], abs=1e-5)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_iterates_come_from_below(confidence: float) -> None:
    reached = walk(binary(), torch.zeros(1, 1, 1, 2, dtype=torch.float64), confidence, 12)
    assert all(one <= other for one, other in itertools.pairwise(reached))
    assert max(reached) <= confidence + 1e-8
    assert reached[-1] == pytest.approx(confidence, abs=1e-7)


def test_the_distance_is_that_of_the_confidence() -> None:
    """On a binary linear model: (logit(C) - s) / |w|."""
    model, x = binary(slope=0.7, bias=-4.0), torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    confidence = torch.tensor([0.9], dtype=torch.float64)
    found = newton.unrolled(model, x, torch.ones(1, dtype=torch.int64), confidence, steps=10, overshoot=0.0)
    assert float((found - x).detach().norm()) == pytest.approx((math.log(0.9 / 0.1) + 4) / 0.7, rel=1e-4)


def test_five_steps_with_overshoot_reach_095() -> None:
    x, target = torch.zeros(2, 1, 1, 2, dtype=torch.float64), torch.ones(2, dtype=torch.int64)
    confidence = torch.tensor([0.8, 0.95], dtype=torch.float64)
    found = newton.unrolled(binary(), x, target, confidence)
    reached = newton.log_probability(binary()(found), target).exp()
    assert reached.tolist() == pytest.approx([0.8, 0.95], abs=5e-3)


def smooth() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Softplus(), nn.Linear(8, 3)).double()


def test_the_gradient_for_parameters_is_that_of_finite_differences() -> None:
    """Where gradients are taken is held fixed, as the definition has it."""
    model, x = smooth(), images(4, dtype=torch.float64)
    target, confidence = torch.tensor([0, 1, 2, 0]), torch.full((4,), 0.999, dtype=torch.float64)
    weight = model[1].weight
    points: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, given: points.append(given[0].detach().clone()))
    distance = ((newton.unrolled(model, x, target, confidence, steps=3) - x) ** 2).flatten(1).sum(1).mean()
    handle.remove()
    (gradient,) = torch.autograd.grad(distance, weight)

    def at(entry: tuple[int, int], shift: float) -> float:
        """The same steps with one weight changed, from the points recorded before. No row ever reaches 0.999."""
        changed = weight.detach().clone()
        changed[entry] += shift
        delta = torch.zeros_like(x)
        for point in points:
            here = point.requires_grad_()
            value = newton.log_probability(functional_call(model, {"1.weight": changed}, (here,)), target)
            (slope,) = torch.autograd.grad(value.sum(), here)
            norm = ((slope**2).flatten(1).sum(1) + 1e-8).sqrt()
            delta = delta + (((math.log(0.999) - value).abs() / norm + 1e-4) / norm).view(-1, 1, 1, 1) * slope
        return float(((1.05 * delta) ** 2).flatten(1).sum(1).mean().detach())

    soft = soft_part(model, x, target, confidence)
    for entry in ((0, 0), (3, 17), (7, 35)):
        difference = (at(entry, 1e-5) - at(entry, -1e-5)) / 2e-5
        assert float(gradient[entry] - soft[entry]) == pytest.approx(difference, rel=1e-4, abs=1e-9)
        assert abs(difference) > 1e-6


def soft_part(model: nn.Sequential, x: Tensor, target: Tensor, confidence: Tensor) -> Tensor:
    """What the straight-through estimator adds to the gradient: the product of its factors, differentiated by hand."""
    weight, delta = model[1].weight, torch.zeros_like(x)
    sure = torch.zeros((), dtype=torch.float64)
    factors: list[Tensor] = []
    steps: list[Tensor] = []
    for _ in range(3):
        here = (x + 1.05 * delta).detach().requires_grad_()
        value = newton.log_probability(model(here), target)
        (slope,) = torch.autograd.grad(value.sum(), here, retain_graph=True)
        sigma = torch.sigmoid(confidence - value.exp()).detach()
        factors.append(-sigma * (1 - sigma) * value.exp())
        steps.append(newton.newton_step(value, confidence.log(), slope).detach())
        delta = delta + steps[-1]
    for first, step in enumerate(steps):
        slope_of_square = (2 * 1.05**2 * delta * step).flatten(1).sum(1)
        sure = sure + (slope_of_square * sum(factors[: first + 1])).mean()
    (gradient,) = torch.autograd.grad(sure, weight)
    return gradient


def test_cutting_the_gradient_in_the_step_would_be_seen() -> None:
    model, x = smooth(), images(4, dtype=torch.float64)
    target, confidence = torch.tensor([0, 1, 2, 0]), torch.full((4,), 0.9, dtype=torch.float64)
    found = newton.unrolled(model, x, target, confidence)
    gradients = torch.autograd.grad((found - x).square().sum(), list(model.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients[:3])


def test_the_straight_through_estimator() -> None:
    probability = torch.tensor([0.2, 0.5, 0.7], dtype=torch.float64, requires_grad=True)
    short = newton.still_short(probability, torch.full((3,), 0.5, dtype=torch.float64))
    assert short.tolist() == [1.0, 0.0, 0.0]  # at the confidence itself nothing is short
    (gradient,) = torch.autograd.grad(short.sum(), probability)
    sigma = torch.sigmoid(0.5 - probability.detach())
    torch.testing.assert_close(gradient, -sigma * (1 - sigma))


def test_a_row_that_is_there_stays() -> None:
    model, x = binary(bias=6.0), torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    found = newton.unrolled(model, x, torch.ones(1, dtype=torch.int64), torch.tensor([0.9], dtype=torch.float64))
    assert torch.equal(found, x)


def test_the_nearest_class_by_hand() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 4.0]])
    logits = torch.tensor([[3.0, 2.0, 1.0]])  # gaps 1 and 2, slopes 1 and 4: distances 1 and 1/2
    gradients = weight.view(1, 3, 1, 1, 2)
    assert newton.nearest_class(logits, gradients, torch.tensor([0])).tolist() == [2]
    assert newton.nearest_class(logits, gradients, torch.tensor([2])).tolist() == [1]  # 1 / sqrt(17) against 2 / 4
    assert newton.nearest_class(logits, 0 * gradients, torch.tensor([0])).item() in {1, 2}
