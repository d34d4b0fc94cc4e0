"""SparseFool (Modas et al. 2019, https://arxiv.org/abs/1811.02248, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import balls, boundaries, boxes, checks, losses
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Jacobian, Problem
from algorithms.tensors import Images, per_row


class Walk(NamedTuple):
    """Where the rows stand: at a sparse point, and on the way from there to the nearest boundary."""

    x_adv: Images
    sparse: Images  # the sum of the sparse steps, without overshoot
    base: Images  # where the walk to the boundary began: the sparse point with overshoot
    delta: Images  # of the walk, without overshoot


@final
@dataclass(frozen=True, kw_only=True)
class SparseFool(Attack):
    """Walks to the boundary by DeepFool, takes its tangent there, and crosses that with as few pixels as it can.

    A quick attack for l1 with few, large changes: for a plane the least l1 step moves the pixels of the largest slopes
    first, each as far as the box lets it. That step is made for a plane `extension` times as far as the boundary, and
    repeated from where it ends until the class changes. It stops there and refines nothing: `ead`, `fab` and `pdpgd`
    find smaller norms. On models whose boundary is far from flat it may fail.

    A step is one of the walk, whose points are not sparse and no candidates, or one across the tangent. It costs two
    forward passes and a backward pass for each rival class (all others, or the `rivals` likeliest).
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l1"] = "l1"
    steps: int = 200
    extension: float = 1.0  # how far the plane is, in walks to the boundary (the paper's lambda: 1 to 3)
    overshoot: float = 0.02  # share of a perturbation added to cross the boundary
    rivals: int = 0  # how many of the likeliest other classes are looked at; 0 for all
    loss: Loss = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("extension", self.extension, 1, "a number of walks")
        checks.at_least("overshoot", self.overshoot, 0, "a share of the perturbation")
        checks.at_least("rivals", self.rivals, 0, "a number of classes, 0 for all others")

    def start(self, problem: Problem) -> Walk:
        """The clean images."""
        zero = torch.zeros_like(problem.x)
        return Walk(problem.x, zero, problem.x, zero)

    def step(self, problem: Problem, state: Walk, k: int) -> Walk:
        """Rows on this side of the boundary walk on; rows beyond it make a sparse step from where the walk began."""
        targeted, rivals = self.targeted, self.rivals or None
        here = problem.jacobian(
            state.x_adv, lambda z: boundaries.gaps(z, problem.y, targeted=targeted, rivals=rivals), judged=False
        )
        crossed = losses.fooled(here.logits, problem.y, targeted=targeted)
        if k == 0:
            problem.judge(state.x_adv, here.logits, torch.ones_like(crossed))
        delta, sparse = self._walk(state, here), self._jump(problem.x, state, here)
        stuck = (sparse == state.sparse).flatten(1).all(1)  # at the first step: fooled, and no walk has been made
        rows, further = per_row(crossed, delta), 1 + self.overshoot
        base = torch.where(rows, (problem.x + further * sparse).clamp(0, 1), state.base)
        delta = torch.where(rows, 0, delta)
        x_adv = (base + further * delta).clamp(0, 1)
        logits = problem.predict(x_adv, judged=False)  # a row fooled here is spared the many passes of another step
        problem.judge(x_adv, logits, crossed)
        problem.finish(crossed & (stuck | losses.fooled(logits, problem.y, targeted=targeted)))
        if k == self.steps - 1:
            problem.finish(torch.ones_like(crossed))
        return Walk(x_adv, torch.where(rows, sparse, state.sparse), base, delta)

    def _walk(self, state: Walk, here: Jacobian) -> Images:
        """The walk with one more of DeepFool's steps, to the nearest of the linearised boundaries in l2."""
        planes = boundaries.nearest_of(here, "l2")
        slope = balls.size(planes.normal, "l2")
        length = torch.where(slope > 0, planes.gap.abs() / slope, 0) + 1e-4
        return state.delta + per_row(length, state.delta) * balls.steepest(planes.normal, "l2")

    def _jump(self, x: Images, state: Walk, here: Jacobian) -> Images:
        """The sparse perturbation with the least l1 step to the extended tangent. Algorithm 1.

        The tangent is normal to the gradient of the class beyond the boundary, which has the largest gap.
        """
        normal, sparse = here.gradients[:, 0], x + state.sparse
        beyond = state.base + self.extension * (state.x_adv - state.base)
        gap = (normal * (sparse - beyond)).flatten(1).sum(1).clamp(max=0)
        return (sparse + boxes.to_plane(sparse, gap, normal, "l1")).clamp(0, 1) - x
