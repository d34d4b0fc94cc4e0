"""The decision boundaries around a point, made linear: what DeepFool and its descendants step towards.

(Moosavi-Dezfooli et al. 2016, https://arxiv.org/abs/1511.04599, section 3.) Each rival class l has the boundary
gap_l(x) = z_l(x) - z_y(x) = 0; x is adversarial where some gap is positive. To first order the boundary is a plane at
the distance |gap_l| / ||grad gap_l||, in the dual of the norm that perturbations are measured in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from algorithms import balls, losses
from algorithms.search import Jacobian, Problem, Values
from algorithms.tensors import Images, Labels, Logits, PerRow, per_row


class Planes(NamedTuple):
    """One linearised boundary a row: gap(x + r) = gap + <normal, r>."""

    gap: PerRow  # negative while the boundary has not been crossed
    normal: Images  # the gap's gradient for the input
    logits: Logits  # at the point where the boundaries were taken


def gaps(logits: Logits, y: Labels, *, targeted: bool = False, rivals: int | None = None) -> Values:
    """By how much each rival's logit exceeds that of `y`, (batch, k); positive means that it wins.

    Rivals are all other classes, or the `rivals` with the largest logits, largest first. Targeted, there is a single
    boundary: by how much `y` exceeds the best other class.
    """
    if targeted:
        return -losses.margin(logits, y).unsqueeze(1)
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    count = min(rivals or logits.shape[1], logits.shape[1] - 1)
    return others.topk(count, dim=1).values - logits.gather(1, y.unsqueeze(1))


def nearest(problem: Problem, x_adv: Images, *, rivals: int | None = None) -> Planes:
    """The nearest linearised boundary of each row at `x_adv`, in the attack's norm. Equations 8 and 11 of DeepFool.

    One forward pass and a backward pass a rival (see `gaps`). A rival whose gap does not depend on the input is
    infinitely far away.
    """
    attack = problem.ledger.attack
    at = problem.jacobian(x_adv, lambda logits: gaps(logits, problem.y, targeted=attack.targeted, rivals=rivals))
    return nearest_of(at, attack.norm)


def nearest_of(at: Jacobian, norm: balls.Norm) -> Planes:
    """The nearest of several linearised boundaries of each row, whose gaps are the values of `at`."""
    rows, count = at.values.shape
    slopes = balls.dual(at.gradients.flatten(0, 1), norm).view(rows, count)
    distances = torch.where(slopes > 0, at.values.abs() / slopes, torch.inf)
    closest = distances.argmin(1, keepdim=True)
    normal = at.gradients.take_along_dim(per_row(closest, at.gradients), dim=1)
    return Planes(at.values.gather(1, closest).squeeze(1), normal.squeeze(1), at.logits)
