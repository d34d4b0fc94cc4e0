"""Primal-dual gradient descent (Matyasko and Chau 2021, https://arxiv.org/abs/2106.01538, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import balls, checks, moments, primal_dual
from algorithms.attacks import Attack
from algorithms.search import Problem
from algorithms.tensors import Images, per_row


class Game(NamedTuple):
    """Where the rows stand: the perturbation, and the weights of its two aims."""

    x_adv: Images
    mean: Images  # Adam's moments
    square: Images
    logarithms: primal_dual.Weights
    average: primal_dual.Weights


@final
@dataclass(frozen=True, kw_only=True)
class PDGD(Attack):
    """Descends the l2 norm and the margin together, while a second player sets what each is worth.

    Where Carlini and Wagner search for that worth from outside, run after run, here it moves with the perturbation: up
    for the class while the row is not fooled, up for the norm while it is. As strong as their attack at a tenth of its
    cost or less, and with restarts among the strongest for l2. Each step costs a forward and a backward pass.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l2"] = "l2"
    steps: int = 500
    restarts: int = 1  # the first starts at the clean image, others at random
    step_size: float = 0.1  # of Adam, in pixel units
    dual_step_size: float = 0.1  # of the weights' logarithms
    ratio: float = 0.01  # of the norm's weight to the class's, at first
    fine_tuning: int = 0  # how many of the steps start again from the best point, with smaller steps
    random_start: float = 0.5  # largest change of a pixel at a restart
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        primal_dual.check(self.steps, self.fine_tuning, self.step_size, self.dual_step_size, self.ratio)
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.between("random_start", self.random_start, 0, 1, "the largest change of a pixel")

    def start(self, problem: Problem) -> Game:
        """Clean or random images, and the first weights."""
        x_adv = primal_dual.start(problem, self.random_start)
        zero = torch.zeros_like(x_adv)
        return Game(x_adv, zero, zero, *primal_dual.weights(x_adv, self.ratio))

    def step(self, problem: Problem, state: Game, k: int) -> Game:
        """One step of Adam down the weighted sum, and one of the weights."""
        pace = primal_dual.pace(self.step_size, self.dual_step_size, k, self.steps, self.fine_tuning)
        x_adv, mean, square = state.x_adv, state.mean, state.square
        if pace.from_best:
            x_adv, mean, square = problem.best.x_adv, torch.zeros_like(mean), torch.zeros_like(square)
        at = problem.gradient(x_adv, self.loss)
        norm, wrong = state.average.unbind(1)
        delta = balls.steepest(x_adv - problem.x, "l2")
        gradient = per_row(norm, delta) * delta - per_row(wrong * primal_dual.pull(at.value), delta) * at.gradient
        mean, square = moments.advance(mean, square, gradient)
        direction, scale = moments.corrected(mean, square, pace.seen)
        x_adv = (x_adv - pace.primal * direction / scale).clamp(0, 1)
        duals = primal_dual.advance(state.logarithms, state.average, at.value, pace.dual)
        return Game(x_adv, mean, square, *duals)
