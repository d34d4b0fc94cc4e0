"""How well an attack's search has converged, example by example, and how that goes with its strength.

Wang et al. 2019 (https://arxiv.org/abs/2112.08304), section 3.2: Figure 1a groups examples by their first-order
condition and compares accuracy and loss of the groups; Figure 1b follows single examples from step to step.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algorithms import losses
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.diagnostics.fosc import fosc
from algorithms.gradients import differentiate, predict
from algorithms.modes import frozen
from algorithms.search import Visit, search
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels, Mask, PerRow

Path = Float[Tensor, "points batch"]  # a number for each point that the examples came through


class Converged(NamedTuple):
    """What is known of adversarial examples where they are, a row an example."""

    fosc: PerRow  # first-order condition over the ball, the paper's
    fosc_box: PerRow  # over the images in the ball
    loss: PerRow  # cross-entropy
    right: Mask  # the model predicts the label


class Ball(NamedTuple):
    """Where perturbations lie."""

    norm: Norm
    eps: float


class Group(NamedTuple):
    """Examples of about the same first-order condition."""

    low: float  # the condition is at least this
    high: float  # and less than that
    examples: int
    accuracy: float  # NaN where there is no example
    loss: float  # mean cross-entropy


class Trajectory(NamedTuple):
    """The way of single examples through an attack: the start, and a point after each step."""

    fosc: Path
    loss: Path


def ball_of(attack: Attack) -> Ball | None:
    """The ball that an attack searches; None if it has none, or one without a first-order condition (l0)."""
    return None if attack.budget is None or attack.norm == "l0" else Ball(attack.norm, attack.budget)


def converged(model: nn.Module, x: Images, x_adv: Images, y: Labels, ball: Ball) -> Converged:
    """Measures the examples `x_adv` of `x`, in the ball around them: one forward and one backward pass.

    The conditions are NaN for a model that has no gradient for its input.
    """
    with frozen(model):
        point = x_adv.detach().requires_grad_(True)
        logits = predict(model, point)
        loss = losses.cross_entropy(logits, y)
        slope = differentiate(loss, point) if loss.requires_grad else torch.full_like(x_adv, torch.nan)
    over_ball, over_box = (fosc(x, x_adv, slope, *ball, box=box) for box in (False, True))
    return Converged(over_ball, over_box, loss.detach(), logits.argmax(1) == y)


def groups(condition: Tensor, loss: Tensor, right: Tensor, high: float, count: int = 20) -> list[Group]:
    """`count` groups of equal width between 0 and `high` (Figure 1a); examples beyond `high` are left out."""
    edges = torch.linspace(0, high, count + 1, dtype=torch.float64).tolist()
    found = []
    for low, end in itertools.pairwise(edges):
        rows = (condition >= low) & (condition < end)
        accuracy, mean = right[rows].double().mean().item(), loss[rows].double().mean().item()
        found.append(Group(low, end, int(rows.sum()), accuracy, mean))
    return found


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, in [-1, 1]; NaN where one of them does not vary."""
    a, b = (values.double() - values.double().mean() for values in (one, other))
    scale = math.sqrt((a.square().sum() * b.square().sum()).item())
    return (a * b).sum().item() / scale if scale > 0 else math.nan


def trajectory(
    attack: Attack, model: nn.Module, x: Images, y: Labels, ball: Ball, *, rng: torch.Generator | Streams
) -> Trajectory:
    """The first-order condition and the loss of every example at each point whose gradient the attack asks for.

    The examples stay to the end, whether they fool the model or not; the loss is cross-entropy. An attack that asks
    for no gradient has a trajectory of one point, its last.
    """
    conditions, seen = [], []

    def watch(visit: Visit) -> Mask:
        if len(visit.y) == len(y):
            here = converged(model, visit.x, visit.x_adv, visit.y, ball)
            conditions.append(here.fosc)
            seen.append(here.loss)
        return torch.zeros_like(visit.y, dtype=torch.bool)

    x_adv = search(attack, model, x, y, rng=rng, policy="last", stop=watch).x_adv
    end = converged(model, x, x_adv, y, ball)
    return Trajectory(torch.stack([*conditions, end.fosc]), torch.stack([*seen, end.loss]))
