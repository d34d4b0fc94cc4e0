"""Elastic-net attack (Chen et al. 2018, https://arxiv.org/abs/1709.04114, section 4, equations 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import checks, prox, trade
from algorithms.attacks import Attack
from algorithms.search import Problem
from algorithms.tensors import Images, per_row


class Descent(NamedTuple):
    """Where the rows stand."""

    x_adv: Images  # ahead of `shrunk` by its momentum
    shrunk: Images  # the iterate of FISTA
    search: trade.Search


@final
@dataclass(frozen=True, kw_only=True)
class EAD(Attack):
    """Minimises worth * hinge(margin) + ||x' - x||^2 + sparsity * ||x' - x||_1 by shrinkage with momentum (FISTA).

    Carlini and Wagner's attack for l1: few pixels move, and by much. The classic to compare with, and with `confidence`
    its points transfer well to other models; `pdpgd` and `apgd` are stronger for l1. Each step costs a forward and a
    backward pass, both at the point that momentum leads to, so that every point evaluated is a candidate too.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l1"] = "l1"
    steps: int = 9000  # at most, of all searches together
    searches: int = 9  # descents, each with a worth of its own
    step_size: float = 0.01  # of the gradient, falling to zero in each descent as a square root
    sparsity: float = 0.01  # pixel change that is set to zero at every step (the paper's beta)
    worth: float = 0.01  # of a wrong class against the norms, in the first search (the paper's c)
    confidence: float = 0.0  # margin of logits that an adversarial point must exceed (the paper's kappa)
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        trade.check(self.steps, self.searches, self.worth)
        checks.at_least("step_size", self.step_size, 0, "a factor on the gradient")
        checks.between("sparsity", self.sparsity, 0, 1, "a pixel change")
        checks.at_least("confidence", self.confidence, 0, "a margin of logits")

    def start(self, problem: Problem) -> Descent:
        """The clean images."""
        return Descent(problem.x, problem.x, trade.start(problem.x, self.worth))

    def step(self, problem: Problem, state: Descent, k: int) -> Descent:
        """A gradient step, shrinkage towards the clean image, and momentum; a new worth where a descent is over."""
        each = self.steps // self.searches
        at = problem.gradient(state.x_adv, self.loss)
        search, delta = state.search, state.x_adv - problem.x
        short = (self.confidence - at.value).clamp_min(0)
        lengths = (delta**2).flatten(1).sum(1) + self.sparsity * delta.abs().flatten(1).sum(1)
        gradient = 2 * delta - per_row(search.worth * (short > 0), delta) * at.gradient
        step_size = self.step_size * (1 - search.age / each).sqrt().to(delta)
        box = (-problem.x, 1 - problem.x)
        shrunk = problem.x + prox.l1(delta - per_row(step_size, delta) * gradient, self.sparsity, box=box)
        momentum = per_row(search.age / (search.age + 3), delta).to(delta)
        x_adv = (shrunk + momentum * (shrunk - state.shrunk)).clamp(0, 1)
        objective = lengths + search.worth * short
        still = (shrunk == problem.x).flatten(1).all(1) & (search.age == 0)  # the worth is too small to move anything
        search, over = trade.advance(search, at.value > self.confidence, objective, each, still)
        problem.finish(search.descents >= self.searches)
        over = per_row(over, delta)
        return Descent(torch.where(over, problem.x, x_adv), torch.where(over, problem.x, shrunk), search)
