"""Carlini and Wagner's l2 attack (2017, https://arxiv.org/abs/1608.04644, section VI.A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import checks, moments, trade
from algorithms.attacks import Attack
from algorithms.search import Problem
from algorithms.tensors import Images, per_row

INSIDE = 1 - 1e-6  # takes a pixel of 0 or 1 to where the hyperbolic tangent still has a slope


class Descent(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    bent: Images  # x_adv = (tanh(bent) + 1) / 2, so that the box needs no clipping
    mean: Images  # Adam's moments, of the gradient for `bent`
    square: Images
    search: trade.Search


@final
@dataclass(frozen=True, kw_only=True)
class CarliniWagner(Attack):
    """Minimises ||x' - x||^2 + worth * hinge(margin) by Adam, and searches for the worth between descents.

    The classic of the minimal-norm attacks, and with `confidence` the one for points well inside the wrong class, which
    transfer to other models. Thorough and slow: the paper makes 9 searches of 10000 steps, the default here a tenth
    of that; `ddn`, `fmn` and `pdgd` find as small a norm in hundreds of steps. Each step costs a forward and a backward
    pass. A descent that no longer gets lower ends early, and a row leaves after its last descent.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l2"] = "l2"
    steps: int = 9000  # at most, of all searches together
    searches: int = 9  # descents, each with a worth of its own
    step_size: float = 0.01  # of Adam, in units of the hyperbolic tangent's argument
    worth: float = 0.01  # of a wrong class against the squared norm, in the first search (the paper's c)
    confidence: float = 0.0  # margin of logits that an adversarial point must exceed (the paper's kappa)
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        trade.check(self.steps, self.searches, self.worth)
        checks.at_least("step_size", self.step_size, 0, "a length in tanh units")
        checks.at_least("confidence", self.confidence, 0, "a margin of logits")

    def start(self, problem: Problem) -> Descent:
        """The clean images, bent."""
        bent, zero = bend(problem.x), torch.zeros_like(problem.x)
        return Descent(problem.x, bent, zero, zero, trade.start(problem.x, self.worth))

    def step(self, problem: Problem, state: Descent, k: int) -> Descent:
        """One step of Adam; rows whose descent is over go back to the clean image with a new worth."""
        at = problem.gradient(state.x_adv, self.loss)
        search, delta = state.search, state.x_adv - problem.x
        short = (self.confidence - at.value).clamp_min(0)
        objective = (delta**2).flatten(1).sum(1) + search.worth * short
        slope = (1 - torch.tanh(state.bent) ** 2) / 2
        gradient = (2 * delta - per_row(search.worth * (short > 0), delta) * at.gradient) * slope
        mean, square = moments.advance(state.mean, state.square, gradient)
        direction, scale = moments.corrected(mean, square, search.age + 1)
        bent = state.bent - self.step_size * direction / scale
        search, over = trade.advance(search, at.value > self.confidence, objective, self.steps // self.searches)
        problem.finish(search.descents >= self.searches)
        over = per_row(over, bent)
        bent = torch.where(over, bend(problem.x), bent)
        x_adv = torch.where(over, problem.x, (torch.tanh(bent) + 1) / 2)
        return Descent(x_adv, bent, torch.where(over, 0, mean), torch.where(over, 0, square), search)


def bend(x: Images) -> Images:
    """The argument at which (tanh + 1) / 2 gives `x`, finite for pixels of exactly 0 and 1 too."""
    return torch.atanh((2 * x - 1) * INSIDE)
