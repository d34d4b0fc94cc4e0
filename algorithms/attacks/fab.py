"""Fast adaptive boundary attack (Croce and Hein 2020, https://arxiv.org/abs/1907.02044, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import balls, boundaries, boxes, checks, losses
from algorithms.attacks import Attack
from algorithms.search import Problem
from algorithms.tensors import Images, Logits, PerRow, per_row

FIRST_RADIUS = {"linf": 0.3, "l2": 1.0, "l1": 5.0}  # of restarts that know of no adversarial point, in pixel units
LATE, LEAST = 0.9, 0.1  # after this share of the steps, and at the last of several, so little of the overshoot is left
PROBES = 3  # forward passes of the search along the line at the end
NUDGE = 0.01  # share of the bracket by which a probe lies beyond the place where the boundary should be


class Walk(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    found: Images  # the nearest adversarial point of this search
    norm: PerRow  # of its perturbation, infinite while there is none
    margin: PerRow  # there
    clean: PerRow  # margin at the clean image


@final
@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Steps onto the linearised boundary, always pulled towards the clean image, and back inside when it has crossed.

    Among the best attacks for small norms in linf, l2 and l1, with nothing to tune; how logits are scaled makes no
    difference to it. A step goes to a mean of two points, both projected onto the boundary's plane and the box at once:
    the iterate's and the clean image's. Once adversarial, the iterate goes a tenth of the way back. A search along the
    line to the clean image ends it. For an affine model the first step finds the smallest perturbation.

    The paper judges a point, and then takes gradients where it has gone back to. Here gradients are taken at the point
    itself, which lies nearer to the boundary: norms are no larger, and a step costs one forward pass instead of two.
    The overshoot is part of the gap to be closed, not of the step, so that the box does not cut it off, and it is a
    tenth in the last steps. Untargeted, a step costs a backward pass for each rival class too (all others, or the
    `rivals` likeliest), targeted a single one. AutoAttack runs the targeted form on the nine likeliest wrong classes.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["linf", "l2", "l1"] = "linf"
    steps: int = 100
    restarts: int = 1
    eps: float = 0.0  # a perturbation no larger than this will do, and the row is done; 0 for the smallest one
    overshoot: float = 0.05  # share of the gap by which a step goes beyond the boundary, but for the last (eta - 1)
    backward: float = 0.9  # share of the way from the clean image at which an adversarial row goes on (beta)
    most_clean: float = 0.1  # weight of the clean image's projection, at most (alpha_max)
    rivals: int = 0  # how many of the likeliest other classes are looked at; 0 for all
    loss: Literal["margin"] = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.at_least("overshoot", self.overshoot, 0, "a share of the gap")
        checks.between("backward", self.backward, 0, 1, "a share of the way from the clean image")
        checks.between("most_clean", self.most_clean, 0, 1, "a weight")
        checks.at_least("rivals", self.rivals, 0, "a number of classes, 0 for all others")

    def start(self, problem: Problem) -> Walk:
        """The clean images; for a restart, points uniform in half the smallest ball that is known to hold a success."""
        x, best = problem.x, problem.best.norm
        none = torch.full_like(best, torch.inf)
        if problem.restart == 0:
            return Walk(x, x, none, none, -none)
        problem.finish(best <= self.eps)
        known = best.clamp(max=self.eps or torch.inf)
        radius = torch.where(known.isinf(), FIRST_RADIUS[self.norm], known) / 2
        noise = balls.random_point(x, self.norm, radius, problem.streams)
        return Walk((x + noise).clamp(0, 1), x, none, none, self._margin(problem, problem.predict(x)))

    def step(self, problem: Problem, state: Walk, k: int) -> Walk:
        """Takes in a point, goes back inside if it has crossed the boundary, and steps across the boundary's plane."""
        x, there = problem.x, state.x_adv
        planes = boundaries.nearest(problem, there, rivals=self.rivals or None)
        state, margin = self._note(problem, state, planes.logits), self._margin(problem, planes.logits)
        if k == 0 and problem.restart == 0:
            state = state._replace(clean=margin)
        here = torch.where(per_row(margin > 0, x), (x + self.backward * (there - x)).clamp(0, 1), there)
        planes = planes._replace(gap=planes.gap + _inner(planes.normal, here - there))
        late = k > 0 and k >= min(LATE * self.steps, self.steps - 1)
        moved = self._cross(x, here, planes, self.overshoot * (LEAST if late else 1))
        state = state._replace(x_adv=moved)
        if k == self.steps - 1:
            state = self._note(problem, state, problem.predict(moved))
            self._refine(problem, state)
        return state

    def _note(self, problem: Problem, state: Walk, logits: Logits) -> Walk:
        """The nearest success, now that the iterate's logits are known."""
        margin, norm = self._margin(problem, logits), balls.size(state.x_adv - problem.x, self.norm)
        nearer = (margin > 0) & (norm < state.norm)
        problem.finish(nearer & (norm <= self.eps))
        return state._replace(
            found=torch.where(per_row(nearer, problem.x), state.x_adv, state.found),
            norm=torch.where(nearer, norm, state.norm),
            margin=torch.where(nearer, margin, state.margin),
        )

    def _cross(self, x: Images, here: Images, planes: boundaries.Planes, overshoot: float) -> Images:
        """A mean of the projections of the iterate and of the clean image. Equations 9 to 11."""
        beyond, behind = 1 + overshoot, planes.gap + _inner(planes.normal, x - here)  # the gap at the clean image
        step = boxes.to_plane(here, beyond * planes.gap, planes.normal, self.norm)
        home = boxes.to_plane(x, beyond * behind, planes.normal, self.norm)
        near, far = balls.size(step, self.norm), balls.size(home, self.norm)
        weight = per_row((near / (near + far).clamp_min(1e-30)).clamp(max=self.most_clean), x)
        return ((1 - weight) * (here + step) + weight * (x + home)).clamp(0, 1)

    def _refine(self, problem: Problem, state: Walk) -> None:
        """Looks for the boundary between the clean image and the nearest success: false position, on the margin."""
        found = state.norm.isfinite()
        low, high = torch.zeros_like(state.norm), torch.ones_like(state.norm)
        below, above = state.clean, state.margin
        for _ in range(PROBES):
            where = low + (high - low) * torch.where(found, -below / (above - below).clamp_min(1e-30), 1)
            where = where + NUDGE * (high - where)
            probe = problem.x + per_row(where, problem.x) * (state.found - problem.x)
            margin = self._margin(problem, problem.predict(probe.clamp(0, 1)))
            fooled = margin > 0
            low, below = torch.where(fooled, low, where), torch.where(fooled, below, margin)
            high, above = torch.where(fooled, where, high), torch.where(fooled, margin, above)
        problem.finish(torch.ones_like(found))

    def _margin(self, problem: Problem, logits: Logits) -> PerRow:
        return losses.loss("margin", logits, problem.y, targeted=self.targeted)


def _inner(normal: Images, delta: Images) -> PerRow:
    return (normal * delta).flatten(1).sum(1)
