"""Stochastic gradient descent with momentum (Polyak 1964; Nesterov's as in Sutskever et al. 2013, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, final

import torch

from algorithms import descent
from algorithms.schedules import Schedule
from algorithms.schedules.constant import Constant
from algorithms.updates import Parameters, State, Update


@final
@dataclass(frozen=True, kw_only=True)
class SGD(Update):
    """Goes down the gradient, or down a running sum of gradients. The same bits as `torch.optim.SGD`."""

    learning_rate: float = 0.1
    momentum: float = 0.9  # share of the running sum that is kept at a step; 0: none
    nesterov: bool = False  # looks a step ahead
    weight_decay: float = 0.0  # factor on the weights that is added to their gradients
    decay_all: bool = True  # False: weights of two axes or more only, so no bias and no batch norm
    clip_norm: float = 0.0  # largest l2 norm of all gradients together; 0: no clipping
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        descent.check(self.learning_rate, self.weight_decay, self.clip_norm)
        descent.check_kept("momentum", self.momentum, "the share of the running sum that a step keeps")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: needs a momentum above 0; set momentum = 0.9, say")

    def at(self, progress: float) -> Self:
        """With the learning rate that the schedule gives, and no schedule any more."""
        rate = self.learning_rate * self.schedule.factor(progress)
        return replace(self, learning_rate=rate, schedule=Constant())

    def start(self, parameters: Parameters) -> State:
        """Running sums of zero; nothing without momentum."""
        if self.momentum == 0:
            return {}
        return {f"momentum/{name}": torch.zeros_like(value) for name, value in parameters.items()}

    @torch.no_grad()
    def step(self, parameters: Parameters, gradients: Parameters, state: State) -> tuple[Parameters, State]:
        """One step of `learning_rate` along the running sum."""
        names = list(parameters)
        gradients = descent.clip(gradients, self.clip_norm)
        gradients = descent.penalise(gradients, parameters, self.weight_decay, every=self.decay_all)
        directions = tuple(descent.pick(gradients, names))
        if self.momentum > 0:
            kept = torch._foreach_mul([state[f"momentum/{name}"] for name in names], self.momentum)
            sums = torch._foreach_add(kept, directions)
            state = {f"momentum/{name}": value for name, value in zip(names, sums, strict=True)}
            directions = torch._foreach_add(directions, sums, alpha=self.momentum) if self.nesterov else sums
        moved = torch._foreach_add(list(parameters.values()), directions, alpha=-self.learning_rate)
        return descent.named(parameters, moved), state
