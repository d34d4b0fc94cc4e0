"""How is an input perturbed? One file an attack; each is a frozen dataclass that implements `Attack`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from algorithms.balls import Norm
from algorithms.losses import Loss
from algorithms.search import Problem, search
from algorithms.tensors import Images, Labels
from algorithms.transport import Costs


class Attack(ABC):
    """A rule: where to start, how to step. `algorithms.search` does what is common to all of them.

    A call returns, a row, the first adversarial example found (a minimal-norm attack: the smallest). A row that
    withstood a budget attack is the one with the highest loss, and one that withstood a minimal-norm attack is the
    clean image. `search.search` gives the whole record with success, norm and passes, and other policies.
    """

    minimal: ClassVar[bool] = False  # True: looks for the smallest perturbation; False: for any within a budget
    norm: Norm  # how perturbations are measured
    targeted: bool  # True: `y` holds the classes to reach
    loss: Loss  # what is climbed, and what "highest loss" means

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many times `step` is called."""

    @property
    def restarts(self) -> int:
        """How many times the search is made from a fresh start; the best row of all is kept."""
        return 1

    @property
    def budget(self) -> float | None:
        """Radius of the ball of `norm` that perturbations stay in, in pixel units; None where there is no such ball."""
        eps: float | None = getattr(self, "eps", None)
        return None if self.minimal or self.costs is not None else eps

    @property
    def costs(self) -> Costs | None:
        """Of moving mass, where `eps` bounds these and not `norm`, which then is only what the record shows."""
        return None

    @abstractmethod
    def start(self, problem: Problem) -> Any:
        """The state before the first step: a NamedTuple of tensors with a row an example, `x_adv` among them."""

    @abstractmethod
    def step(self, problem: Problem, state: Any, k: int) -> Any:
        """The state after step `k`, counted from 0. Points evaluated through `problem` are judged on the way."""

    def __call__(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Images:
        """Adversarial examples for `x` (batch, channels, height, width) in [0, 1] with labels `y` (batch,) int64."""
        return search(self, model, x, y, rng=rng).x_adv
