"""Primal-dual proximal gradient descent (Matyasko and Chau 2021, https://arxiv.org/abs/2106.01538, algorithm 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import checks, moments, primal_dual, prox
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow, per_row

STEP_SIZE: dict[Norm, float] = {"linf": 1.0, "l2": 0.1, "l1": 0.5, "l0": 0.5}  # good ones on a robust MNIST network


class Game(NamedTuple):
    """Where the rows stand: the perturbation, and the weights of its two aims."""

    x_adv: Images
    mean: Images  # Adam's moments, of the margin's gradient alone
    square: Images
    logarithms: primal_dual.Weights
    average: primal_dual.Weights


@final
@dataclass(frozen=True, kw_only=True)
class PDPGD(Attack):
    """Descends the margin by gradients and the norm by its proximal operator, while a second player weighs the two.

    One attack for every norm, and for l-infinity, l1 and l0 among the strongest: the operator handles a norm without
    slope exactly, and its weight moves with the perturbation (see `pdgd`) instead of being searched for. Restarts from
    random points and `fine_tuning` make it stronger still. Each step costs a forward and a backward pass.

    The operator acts inside the box [0, 1] and in the metric of Adam's step; for l1 and l0 that is softened as by the
    thesis's five inner iterations, which are summed up here in closed form. In l0 the count is replaced by the sum of
    |r|^(2/3), which unlike the count itself (`operator="l0"`) pulls entries towards zero before they get there. With
    `pixels` a pixel counts once, whatever its channels do, and so the record counts it.
    """

    minimal: ClassVar[bool] = True
    norm: Norm = "linf"
    steps: int = 500
    restarts: int = 1  # the first starts at the clean image, others at random
    step_size: float | None = None  # of Adam, in pixel units; None for one that suits the norm
    dual_step_size: float = 0.1  # of the weights' logarithms
    ratio: float = 0.01  # of the norm's weight to the class's, at first
    fine_tuning: int = 0  # how many of the steps start again from the best point, with smaller steps
    random_start: float = 0.5  # largest change of a pixel at a restart
    operator: Literal["two_thirds", "l0"] = "two_thirds"  # for l0
    pixels: bool = False  # for l0: pixels are counted, not their channels
    pixel_rule: prox.PixelRule = "l2"  # for l0 with the operator l0: what decides whether a pixel stays
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for settings that make no sense."""
        primal_dual.check(self.steps, self.fine_tuning, self._step_size, self.dual_step_size, self.ratio)
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.between("random_start", self.random_start, 0, 1, "the largest change of a pixel")
        if self.pixels and self.norm != "l0":
            raise ValueError(f"pixels: only the norm l0 counts pixels, and the norm is {self.norm}")

    def start(self, problem: Problem) -> Game:
        """Clean or random images, and the first weights."""
        x_adv = primal_dual.start(problem, self.random_start)
        zero = torch.zeros_like(x_adv)
        return Game(x_adv, zero, zero, *primal_dual.weights(x_adv, self.ratio))

    def step(self, problem: Problem, state: Game, k: int) -> Game:
        """One step of Adam down the margin, one proximal step down the norm, and one of the weights."""
        pace = primal_dual.pace(self._step_size, self.dual_step_size, k, self.steps, self.fine_tuning)
        x_adv, mean, square = state.x_adv, state.mean, state.square
        if pace.from_best:
            x_adv, mean, square = problem.best.x_adv, torch.zeros_like(mean), torch.zeros_like(square)
        at = problem.gradient(x_adv, self.loss)
        gradient = -per_row(primal_dual.pull(at.value), x_adv) * at.gradient
        mean, square = moments.advance(mean, square, gradient)
        direction, scale = moments.corrected(mean, square, pace.seen)
        if self.pixels:  # one metric for all channels of a pixel
            scale = scale.amax(1, keepdim=True).expand_as(scale)
        moved = x_adv - problem.x - pace.primal * direction / scale
        strength = pace.primal * state.average[:, 0] / state.average[:, 1]
        metric = softened(scale) if self.norm in ("l1", "l0") else scale
        delta = self._shrunk(moved, strength, metric, (-problem.x, 1 - problem.x))
        duals = primal_dual.advance(state.logarithms, state.average, at.value, pace.dual)
        return Game((problem.x + delta).clamp(0, 1), mean, square, *duals)

    @property
    def _step_size(self) -> float:
        return STEP_SIZE[self.norm] if self.step_size is None else self.step_size

    def _shrunk(self, moved: Images, strength: PerRow, weight: Images, box: prox.Box) -> Images:
        """The proximal operator that the settings ask for."""
        if self.norm == "l0" and self.pixels and self.operator == "l0":
            return prox.pixels(moved, strength, weight=weight, box=box, rule=self.pixel_rule)
        if self.norm == "l0" and self.pixels:
            return prox.pixels_two_thirds(moved, strength, weight=weight, box=box)
        count = prox.l0 if self.operator == "l0" else prox.two_thirds
        operator = {"linf": prox.linf, "l2": prox.l2, "l1": prox.l1, "l0": count}[self.norm]
        return operator(moved, strength, weight=weight, box=box)


def softened(scale: Images) -> Images:
    """The metric in which one proximal step does what five inner iterations do in the metric `scale`.

    The iterations u <- prox(u - h (u - r)), where h is the scale over its largest entry, take mu (1 - (1 - h)^5) / h
    off an entry in all, against mu / h in the limit. To stop early is what makes the attack strong for l1 and l0: an
    entry of small gradient is held back five times as much as that of the largest, and not without bound.
    """
    largest = per_row(scale.flatten(1).amax(1), scale)
    h = scale / largest
    return largest / (5 + h * (-10 + h * (10 + h * (-5 + h))))
