"""Any attack, on the model as a view shows it: another solver, averaged or scaled logits.

What Athalye, Carlini and Wagner 2018 (https://arxiv.org/abs/1802.00420) do to defenses that mask their gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.losses import Loss
from algorithms.search import Problem, search
from algorithms.tensors import Images
from algorithms.transport import Costs
from algorithms.views import View
from algorithms.views.scaled import Scaled


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
class Through(Attack):
    """Runs an attack on a view of the model, and shows what it found to the model itself.

    A model may mask its gradients where its predictions are easily moved. What this attack finds and the attack alone
    does not is masked. Passes are those on the view and one on the model; a view may cost several of the model's.
    """

    attack: Attack = field(default_factory=pgd)
    view: View = field(default_factory=Scaled)

    @property
    def minimal(self) -> bool:  # type: ignore[override] # the attack's, and no constant here
        """As the attack is."""
        return self.attack.minimal

    @property
    def norm(self) -> Norm:  # type: ignore[override]
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
        return Point(problem.x)

    def step(self, problem: Problem, state: Point, k: int) -> Point:
        """The attack on the view."""
        seen, policy = self.view.see(problem.model), problem.ledger.policy
        record = search(self.attack, seen, problem.x, problem.y, rng=problem.streams, policy=policy)
        problem.count(forwards=record.forwards, backwards=record.backwards)
        return Point(record.x_adv)
