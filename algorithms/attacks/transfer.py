"""Transfer: an attack on one model, judged on another (Papernot et al. 2016, https://arxiv.org/abs/1605.07277)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from torch import nn

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.companions import WithSurrogate
from algorithms.losses import Loss
from algorithms.search import Policy, Problem, search
from algorithms.tensors import Images
from algorithms.transport import Costs


def pgd() -> Attack:
    """The default attack."""
    kind: Any = plugins.find(Attack, "pgd")
    default: Attack = kind()
    return default


class Point(NamedTuple):
    """Where the rows stand."""

    x_adv: Images


@final
@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Runs any attack on a surrogate and shows its images to the model once: the rows of a black-box table.

    The attacker knows the data but not the weights. The surrogate comes with the model, as
    `companions.WithSurrogate(model, surrogate)`; `surrogate` names the run that an evaluation takes it from. Without
    either, the model is its own surrogate: the white-box entry of the same table.

    A budget attack goes on to the highest loss, as images that just fool the surrogate seldom fool another model. A
    minimal-norm attack transfers its smallest perturbation; give it a `confidence`. Passes are those on the surrogate
    and one on the model.
    """

    attack: Attack = field(default_factory=pgd)
    surrogate: str = ""  # name or folder of the run whose model is attacked; empty: that which comes with the model

    @property
    def norm(self) -> Norm:  # type: ignore[override] # the attack's, and no field of its own
        """The attack's."""
        return self.attack.norm

    @property
    def costs(self) -> Costs | None:
        """The attack's."""
        return self.attack.costs

    @property
    def targeted(self) -> bool:  # type: ignore[override]
        """As the attack is."""
        return self.attack.targeted

    @property
    def loss(self) -> Loss:  # type: ignore[override]
        """The attack's."""
        return self.attack.loss

    @property
    def eps(self) -> float:
        """The attack's radius; infinite for one that looks for the smallest perturbation."""
        return math.inf if self.attack.minimal else float(getattr(self.attack, "eps", math.inf))

    @property
    def steps(self) -> int:
        """One: the whole attack."""
        return 1

    def start(self, problem: Problem) -> Point:
        """The clean images."""
        if self.surrogate and not isinstance(problem.model, WithSurrogate):
            raise ValueError(
                f"surrogate: {self.surrogate!r} is the name of a run, and its model has not come with the attacked "
                "one; from Python, leave it empty and attack WithSurrogate(model, surrogate)"
            )
        return Point(problem.x)

    def step(self, problem: Problem, state: Point, k: int) -> Point:
        """The attack on the surrogate."""
        model: nn.Module = problem.model.surrogate if isinstance(problem.model, WithSurrogate) else problem.model
        policy: Policy = "first success" if self.attack.minimal else "highest loss"
        record = search(self.attack, model, problem.x, problem.y, rng=problem.streams, policy=policy)
        problem.count(forwards=record.forwards, backwards=record.backwards)
        return Point(record.x_adv)
