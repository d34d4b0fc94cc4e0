"""Jacobian-based saliency maps (Papernot et al. 2016, https://arxiv.org/abs/1511.07528, algorithms 1 to 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Int64
from torch import Tensor

from algorithms import balls, checks, losses, saliency
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem, Values
from algorithms.tensors import Counts, Images, Labels, Logits, per_row

SIGNS = {"both": (1.0, -1.0), "up": (1.0,), "down": (-1.0,)}


class Run(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    aims: Int64[Tensor, "batch aims"]  # classes to be reached, one run after the other
    run: Counts  # of the runs, one for each aim and sign


@final
@dataclass(frozen=True, kw_only=True)
class JSMA(Attack):
    """Changes two entries at a time, those that help a class most and hurt the others most, until it is reached.

    The classic of the l0 attacks, greedy and far from the fewest entries on robust models: use `sigma_zero` or `pdpgd`
    for those. A pair counts as the product of what changing both does, to first order, to the aim's logit and,
    downwards, to all others; only pairs that do both are taken. The paper multiplies slopes, as if every entry could
    move by a whole step: a pixel of 0.99 hardly does. The best pair of all is found, whatever the size of the image.

    Untargeted, every other class is an aim (or the `rivals` likeliest), likeliest first, once by raising entries and
    once by lowering them; the fewest changes count. A run is given up when it can no longer be the best. A step costs a
    forward pass and two backward passes, and a search one more forward pass.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l0"] = "l0"
    steps: int = 4000  # pairs at most, of all runs together
    step_size: float = 1.0  # of both entries, in pixel units (the paper's theta)
    share: float = 1.0  # of the entries that a run may change (the paper's gamma)
    direction: Literal["both", "up", "down"] = "both"  # of the entries' changes: a run for each
    rivals: int = 0  # how many of the likeliest other classes are aims; 0 for all
    loss: Loss = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of pairs")
        checks.between("step_size", self.step_size, 1e-3, 1, "a length in pixel units")
        checks.between("share", self.share, 0, 1, "a share of the entries")
        checks.at_least("rivals", self.rivals, 0, "a number of classes, 0 for all others")

    def start(self, problem: Problem) -> Run:
        """The clean images, and the classes in the order in which they are tried."""
        logits = problem.predict(problem.x, self.loss)
        others = logits.scatter(1, problem.y.unsqueeze(1), -torch.inf)
        count = min(self.rivals or logits.shape[1], logits.shape[1] - 1)
        aims = problem.y.unsqueeze(1) if self.targeted else others.topk(count, dim=1).indices
        problem.finish(losses.fooled(logits, problem.y, targeted=self.targeted))
        return Run(problem.x, aims, torch.zeros_like(problem.y))

    def step(self, problem: Problem, state: Run, k: int) -> Run:
        """Changes a pair, or begins the next run where there is none, or where it would come too late."""
        x, x_adv, signs = problem.x, state.x_adv, SIGNS[self.direction]
        aim = state.aims.gather(1, (state.run // len(signs)).unsqueeze(1)).squeeze(1)
        sign = per_row(x.new_tensor(signs)[state.run % len(signs)], x)
        at = problem.jacobian(x_adv, lambda logits: aim_and_others(logits, aim))
        change = (x_adv + self.step_size * sign).clamp(0, 1) - x_adv  # less than a step near black or white
        effects = (change.unsqueeze(1) * at.gradients).flatten(2)
        pair = saliency.best_pair(effects[:, 0], -effects[:, 1], (change != 0).flatten(1))
        fooled = losses.fooled(at.logits, problem.y, targeted=self.targeted)
        changed = balls.size(x_adv - x, "l0") + (2 if self.step_size == 1 else 0)  # a smaller step may come back
        late = (changed >= problem.best.norm) | (changed > self.share * x[0].numel())
        over = fooled | late | pair.product.isinf()
        moved = (x_adv + self.step_size * sign * marked(x_adv, pair.entries)).clamp(0, 1)
        run = state.run + over
        problem.finish(run >= len(signs) * state.aims.shape[1])
        return state._replace(x_adv=torch.where(per_row(over, x), x, moved), run=run)


def aim_and_others(logits: Logits, aim: Labels) -> Values:
    """The aim's logit, and the sum of all others."""
    own = logits.gather(1, aim.unsqueeze(1))
    return torch.cat([own, logits.sum(1, keepdim=True) - own], 1)


def marked(like: Images, entries: Tensor) -> Images:
    """One at these entries of each row, zero elsewhere."""
    return torch.zeros_like(like.flatten(1)).scatter(1, entries, 1).view_as(like)
