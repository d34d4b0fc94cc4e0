"""TRADES, a trade-off of accuracy and robustness (Zhang et al. 2019, https://arxiv.org/abs/1901.08573, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import balls, checks
from algorithms.attacks import Attack
from algorithms.defenses import Defense
from algorithms.divergences import kullback_leibler
from algorithms.gradients import predict
from algorithms.losses import Loss
from algorithms.search import Policy, Problem, Record, search
from algorithms.tensors import Images, Labels, Logits

Norm = Literal["linf", "l2"]


class Iterate(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    clean: Logits  # predicted for the clean images


@final
@dataclass(frozen=True, kw_only=True)
class Diverge(Attack):
    """Steps away from the prediction for the clean image, whatever the label is; PGD on the divergence."""

    norm: Norm
    eps: float
    step_size: float
    spread: float
    steps: int = 10
    loss: Loss = "cross_entropy"  # decides what `highest loss` keeps, and is not climbed
    targeted: bool = False

    def start(self, problem: Problem) -> Iterate:
        """Near the clean images, where the divergence and its gradient are zero."""
        noise = problem.streams.normal(tuple(problem.x.shape[1:]), dtype=problem.x.dtype)
        delta = balls.project(self.spread * noise, self.norm, self.eps)
        return Iterate((problem.x + delta).clamp(0, 1), problem.predict(problem.x))

    def step(self, problem: Problem, state: Iterate, k: int) -> Iterate:
        """One steepest step, back onto the ball and into the box."""
        clean = state.clean
        gradient = problem.gradient_of(state.x_adv, lambda logits: kullback_leibler(clean, logits)).gradient
        moved = state.x_adv + self.step_size * balls.steepest(gradient, self.norm)
        return Iterate((problem.x + balls.project(moved - problem.x, self.norm, self.eps)).clamp(0, 1), clean)


@final
@dataclass(frozen=True, kw_only=True)
class Trades(Defense):
    """Learns to be right on clean images and to predict the same around them.

    The attack looks for the largest divergence between the two predictions; it does not know the label. Costs one
    forward pass more than PGD, and a second one in the loss.
    """

    beta: float = 6.0  # weight of the divergence: 1 / lambda of the paper
    norm: Norm = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    step_size: float = 2 / 255  # in pixel units, like eps
    steps: int = 10
    spread: float = 1e-3  # standard deviation of the noise that the attack starts from, in pixel units
    keep: Policy = "last"  # which point of the attack is learnt from; others judge by cross-entropy

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("beta", self.beta, 0, "a weight")
        checks.radius(self.norm, self.eps)
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("spread", self.spread, 0, "a standard deviation in pixel units")

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """Examples that the model predicts most differently from the clean ones."""
        attack = Diverge(norm=self.norm, eps=self.eps, step_size=self.step_size, steps=self.steps, spread=self.spread)
        return search(attack, model, x, y, rng=rng, policy=self.keep)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the clean images and `beta` times KL(clean || adversarial), with gradients through both."""
        clean, adversarial = predict(model, x), predict(model, x_adv)
        divergence = kullback_leibler(clean, adversarial).mean()
        return functional.cross_entropy(clean, y) + self.beta * divergence
