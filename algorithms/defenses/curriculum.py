"""Curriculum adversarial training (Cai et al. 2018, https://arxiv.org/abs/1805.04807): PGD takes ever more steps.

Without `mixing`: the plain schedule by the number of steps that Wang et al. 2019 (https://arxiv.org/abs/2112.08304)
compare with.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.search import Policy, Record, search, unperturbed
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels


@final
@dataclass(frozen=True, kw_only=True)
class Curriculum(Defense):
    """Learns from clean examples first, then from attacks of 1, 2, ... steps, up to the attack's own number.

    The lessons follow the progress of the training alone, not the accuracy as those of Cai et al. do. Their batch
    mixing, which keeps weak examples in sight, is an option.
    """

    attack: Attack = field(default_factory=PGD)
    until: float = 0.8  # share of the training after which the attack makes all of its steps
    mixing: bool = False  # equal parts of a shard are attacked with 0, 1, ... steps up to the lesson's number
    keep: Policy = "last"  # which point of the attack is learnt from
    progress: float = 0.0  # how far the training has come, 0 to 1; a run sets it

    def __post_init__(self) -> None:
        """Raises ValueError for shares outside [0, 1] and for attacks whose number of steps cannot be chosen."""
        checks.between("until", self.until, 0, 1, "a share of the training")
        checks.between("progress", self.progress, 0, 1, "a share of the training")
        chosen: Any = self.attack
        if "steps" not in {each.name for each in dataclasses.fields(chosen)}:
            raise ValueError("attack: one that has a field `steps`, such as pgd")
        replace(chosen, steps=1)  # an attack that cannot make so few says so now

    @property
    def lesson(self) -> int:
        """How many steps the attack makes now: round(K t / T_c), at most K."""
        share = self.progress / self.until if self.progress < self.until else 1.0
        return round(self.attack.steps * share)

    def at(self, progress: float) -> Self:
        """The same in the lesson of that time."""
        return replace(self, progress=progress)

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The attack's examples after as many steps as the lesson says."""
        streams = Streams.draw(rng, len(x), x.device)
        if not self.mixing:
            return self._attacked(model, x, y, streams, self.lesson)
        lessons = torch.arange(len(x), device=x.device) * (self.lesson + 1) // len(x)
        parts = []
        for steps in lessons.unique().tolist():  # ascending, so that the rows keep their order
            rows = lessons == steps
            parts.append(self._attacked(model, x[rows], y[rows], streams.select(rows), steps))
        return Record(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _attacked(self, model: nn.Module, x: Images, y: Labels, streams: Streams, steps: int) -> Record:
        if steps == 0:
            return unperturbed(x)
        weakened: Any = self.attack
        return search(replace(weakened, steps=steps), model, x, y, rng=streams, policy=self.keep)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on the adversarial images."""
        return functional.cross_entropy(predict(model, x_adv), y)
