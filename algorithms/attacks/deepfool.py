"""DeepFool (Moosavi-Dezfooli et al. 2016, https://arxiv.org/abs/1511.04599, algorithm 2 and equation 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import balls, boundaries, checks, losses
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, per_row


class Walk(NamedTuple):
    """Where the rows stand."""

    x_adv: Images


@final
@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
    """Steps to the nearest decision boundary of the linearised model until the class changes.

    A quick estimate of how far the boundary is: exact in one step for an affine model, a few steps for a network. It
    stops at the first wrong class, so it refines nothing, and on a robust model its perturbations are far from the
    smallest: use `fmn`, `pdpgd` or `fab` for those. Targeted, it steps towards the target's boundary alone.

    Every step goes a little beyond the plane and is clipped at once: the next one starts from an image. The sum of all
    steps, clipped at the end, would have to come back from outside the box first, and takes a fifth more steps.

    A step costs two forward passes and one backward pass for each rival class (all other classes, or the `rivals` most
    likely ones: 9 is enough with a thousand classes). Rows leave as soon as they are fooled.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["linf", "l2"] = "l2"
    steps: int = 50
    overshoot: float = 0.02  # share of the perturbation added to cross the boundary
    rivals: int = 0  # how many of the most likely other classes are looked at; 0 for all
    longest: float = 0.0  # length of a step at most, in pixel units; 0: any. Smooth networks are overestimated without
    loss: Loss = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("overshoot", self.overshoot, 0, "a share of the perturbation")
        checks.at_least("rivals", self.rivals, 0, "a number of classes, 0 for all others")
        checks.at_least("longest", self.longest, 0, "a length in pixel units, 0 for any")

    def start(self, problem: Problem) -> Walk:
        """The clean images."""
        return Walk(problem.x)

    def step(self, problem: Problem, state: Walk, k: int) -> Walk:
        """The least step over the nearest plane, and 1e-4 more: where pixels are clipped it might never be reached."""
        planes = boundaries.nearest(problem, state.x_adv, rivals=self.rivals or None)
        slope = balls.dual(planes.normal, self.norm)
        length = torch.where(slope > 0, planes.gap.abs() / slope, 0) + 1e-4
        length = (1 + self.overshoot) * (length.clamp(max=self.longest) if self.longest else length)
        moved = state.x_adv + per_row(length, problem.x) * balls.steepest(planes.normal, self.norm)
        fooled = losses.fooled(planes.logits, problem.y, targeted=self.targeted)  # at the clean image: nothing to do
        x_adv = torch.where(per_row(fooled, moved), state.x_adv, moved.clamp(0, 1))
        logits = problem.predict(x_adv, self.loss)  # a row fooled here is spared the many passes of another step
        last = torch.full_like(fooled, k == self.steps - 1)
        problem.finish(losses.fooled(logits, problem.y, targeted=self.targeted) | last)
        return Walk(x_adv)
