"""Curriculum adversarial training (Cai et al. 2018, https://arxiv.org/abs/1805.04807): PGD takes ever more steps.

With `accuracy = "none"` and without `mixing`: the plain schedule by the number of steps that Wang et al. 2019
(https://arxiv.org/abs/2112.08304) compare with. What is left out of Cai et al.: they go back to the best parameters of
a lesson when it ends, measure on examples of their own kept out of the training, and quantise them.
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
from algorithms.models import Shape
from algorithms.search import Policy, Record, search, unperturbed
from algorithms.streams import Streams
from algorithms.team import Companion, Companions, companion
from algorithms.tensors import Images, Labels


@final
class Lessons(nn.Module):
    """How far the lessons have come, and what was seen in the present window. Nothing of it is trained."""

    reached: Tensor
    updates: Tensor
    seen: Tensor
    right: Tensor
    best: Tensor
    waited: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("reached", "updates", "seen", "right", "waited"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self.register_buffer("best", -torch.ones(()))

    def close_window(self, enough: float, patience: int) -> None:
        """Ends the lesson if the window's accuracy is `enough` and so many windows were no better than the best one."""
        accuracy = (self.right / self.seen).to(self.best.dtype)
        if accuracy > self.best:
            self.best.copy_(accuracy)
            self.waited.zero_()
        else:
            self.waited += 1
        if accuracy >= enough and self.waited >= patience:
            self.reached += 1
            self.waited.zero_()
            self.best.fill_(-1)
        for counter in (self.updates, self.seen, self.right):
            counter.zero_()


@final
@dataclass(frozen=True, kw_only=True)
class Curriculum(Defense):
    """Learns from clean examples first, then from attacks of 1, 2, ... steps, up to the attack's own number.

    A lesson ends when the model has been accurate enough on its examples, as it sees them while it learns from them,
    over as many updates as `window` says. Batch mixing keeps weak examples in sight.
    """

    attack: Attack = field(default_factory=PGD)
    accuracy: float | None = 0.9  # share of a window's examples right that ends a lesson; none: progress alone does
    window: int = 100  # updates
    patience: int = 0  # windows in a row without a better accuracy that a lesson waits for then
    until: float = 0.8  # share of the training after which the attack makes all of its steps in any case
    mixing: bool = False  # equal parts of a shard are attacked with 0, 1, ... steps up to the lesson's number
    keep: Policy = "last"  # which point of the attack is learnt from
    progress: float = 0.0  # how far the training has come, 0 to 1; a run sets it

    def __post_init__(self) -> None:
        """Raises ValueError for shares outside [0, 1] and for attacks whose number of steps cannot be chosen."""
        checks.between("accuracy", self.accuracy or 0, 0, 1, "a share of the examples")
        checks.at_least("window", self.window, 1, "a number of updates")
        checks.at_least("patience", self.patience, 0, "a number of windows")
        checks.between("until", self.until, 0, 1, "a share of the training")
        checks.between("progress", self.progress, 0, 1, "a share of the training")
        chosen: Any = self.attack
        if "steps" not in {each.name for each in dataclasses.fields(chosen)}:
            raise ValueError("attack: one that has a field `steps`, such as pgd")
        replace(chosen, steps=1)  # an attack that cannot make so few says so now

    def lesson(self, model: nn.Module) -> int:
        """How many steps the attack makes now, at most K: as many as the accuracy allows, or round(K t / T_c)."""
        if self.progress >= self.until:
            return self.attack.steps
        if self.accuracy is None:
            return round(self.attack.steps * self.progress / self.until)
        return min(int(companion(model, "lessons", Lessons).reached), self.attack.steps)

    def companions(self, shape: Shape, classes: int, batch: int) -> Companions:
        """Where it is written down how far the lessons have come, if that depends on the accuracy."""
        return {} if self.accuracy is None else {"lessons": Companion(Lessons())}

    def at(self, progress: float) -> Self:
        """The same in the lesson of that time."""
        return replace(self, progress=progress)

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The attack's examples after as many steps as the lesson says."""
        streams, lesson = Streams.draw(rng, len(x), x.device), self.lesson(model)
        if not self.mixing:
            return self._attacked(model, x, y, streams, lesson)
        lessons = torch.arange(len(x), device=x.device) * (lesson + 1) // len(x)
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
        logits = predict(model, x_adv)
        if self.accuracy is not None:
            lessons = companion(model, "lessons", Lessons)
            lessons.right += (logits.argmax(1) == y).sum()
            lessons.seen += len(y)
        return functional.cross_entropy(logits, y)

    def settle(self, model: nn.Module) -> dict[str, float]:
        """Counts the step; one that fills the window may end the lesson."""
        figures = {"lesson": float(self.lesson(model))}
        if self.accuracy is None:
            return figures
        lessons = companion(model, "lessons", Lessons)
        lessons.updates += 1
        if lessons.updates >= self.window:
            lessons.close_window(self.accuracy, self.patience)
        return figures
