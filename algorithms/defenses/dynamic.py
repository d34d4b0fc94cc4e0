"""Dynamic adversarial training (Wang et al. 2019, https://arxiv.org/abs/2112.08304, Algorithm 1).

The algorithm's indicator V is printed the wrong way round: an example goes on while its FOSC is above the criterion.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.diagnostics.fosc import fosc, weak_conditions
from algorithms.gradients import predict
from algorithms.models import Shape
from algorithms.search import Record, Stop, Visit, search
from algorithms.team import Companion, Companions, companion
from algorithms.tensors import Images, Labels, Mask, PerRow


@final
class Weak(nn.Module):
    """The mean condition of the first batch's examples after FGSM: infinite until it is measured, then the same."""

    c_max: Tensor
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("c_max", torch.full((), torch.inf))
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def note(self, conditions: PerRow) -> None:
        """Adds those of a shard."""
        self.total += conditions.sum()
        self.count += len(conditions)

    def settle(self) -> None:
        """Fixes the mean."""
        if self.c_max.isinf():
            self.c_max.copy_(self.total / self.count)


@final
@dataclass(frozen=True, kw_only=True)
class Dynamic(Defense):
    """Learns from examples that converge ever better: each stops once its FOSC is at or below a falling criterion.

    An example is learnt from where it stopped, and leaves the batch there: what it does not climb is not computed. To
    know that it may stop takes the gradient at that point, so an example that makes s steps costs s + 1 gradients, and
    one that makes all of them no more than in standard adversarial training. FOSC is that of the loss that the attack
    climbs. The paper's criterion falls to zero, which few examples reach: from then on nothing is saved. With `c_min`
    above it, examples that have little left to climb, as the model is sure of them, go on stopping early, and the
    criterion may fall sooner for the same cost. `c_max` depends on data, radius and network: 0.5 is the paper's. With
    "none" it is measured on the first batch (section 4.1), and until then, for the first step and `lag` more, all
    examples stop after one step.
    """

    attack: Attack = field(default_factory=PGD)
    c_max: float | None = 0.5  # the criterion in the beginning; none: the mean FOSC after FGSM, measured
    c_min: float = 0.0  # where the criterion falls to; the paper's is 0
    until: float = 0.8  # T'/T: share of the training in which it falls there
    box: bool = False  # FOSC over images, so that it can reach zero at pixels of 0 and 1; the paper's is over the ball
    first_step_always: bool = True  # as in the released code: the start itself is not asked
    hard_weighting: bool = False  # as in the released code, not the paper: an example counts by its own loss
    progress: float = 0.0  # how far the training has come, 0 to 1; a run sets it

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense and for attacks without a ball."""
        checks.at_least("c_min", self.c_min, 0, "a first-order condition")
        if self.c_max is not None:
            checks.at_least("c_max", self.c_max, self.c_min, "a first-order condition, no less than c_min")
        checks.between("until", self.until, 0, 1, "a share of the training")
        checks.between("progress", self.progress, 0, 1, "a share of the training")
        attack: Any = self.attack
        if (
            attack.minimal
            or attack.targeted
            or attack.restarts > 1
            or attack.norm == "l0"
            or not hasattr(attack, "eps")
        ):
            raise ValueError(
                "attack: one search, without targets, in a ball of radius eps in linf, l2 or l1, such as pgd; "
                "no smallest perturbations and no restarts"
            )

    def criterion(self, model: nn.Module) -> float:
        """The FOSC at which an example stops now: c_t of the paper, but falling from step to step."""
        if self.progress >= self.until:
            return self.c_min
        highest = companion(model, "weak", Weak).c_max.item() if self.c_max is None else self.c_max
        fallen = self.progress / self.until
        return highest * (1 - fallen) + self.c_min * fallen

    def at(self, progress: float) -> Self:
        """The same with the criterion of that time."""
        return replace(self, progress=progress)

    def companions(self, shape: Shape, classes: int, batch: int) -> Companions:
        """Where `c_max` is written down, if it is to be measured."""
        return {"weak": Companion(Weak())} if self.c_max is None else {}

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """Each example where it first met the criterion, or after all steps."""
        return search(self.attack, model, x, y, rng=rng, policy="last", stop=self._stop(self.criterion(model)))

    def _stop(self, criterion: float) -> Stop:
        """A rule for one search: it counts its visits, the first of which is the start."""
        visits = itertools.count()
        attack: Any = self.attack

        def converged(visit: Visit) -> Mask:
            if next(visits) == 0 and self.first_step_always:
                return torch.zeros_like(visit.y, dtype=torch.bool)
            gap = fosc(visit.x, visit.x_adv, visit.gradient, attack.norm, attack.eps, box=self.box)
            return gap <= criterion

        return converged

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the adversarial images."""
        if self.c_max is None and companion(model, "weak", Weak).c_max.isinf():
            attack: Any = self.attack
            conditions = weak_conditions(model, x, y, attack.norm, attack.eps, box=self.box)
            companion(model, "weak", Weak).note(conditions)
        each = functional.cross_entropy(predict(model, x_adv), y, reduction="none")
        return (each.detach() * each).mean() if self.hard_weighting else each.mean()

    def settle(self, model: nn.Module) -> dict[str, float]:
        """After the first step: `c_max` is measured, where it was not given."""
        if self.c_max is None:
            companion(model, "weak", Weak).settle()
        return {"criterion": self.criterion(model)}
