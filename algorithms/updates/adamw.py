"""Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self, final

import torch

from algorithms import adaptive, descent
from algorithms.schedules import Schedule
from algorithms.schedules.constant import Constant
from algorithms.updates import Parameters, State, Update


@final
@dataclass(frozen=True, kw_only=True)
class AdamW(Update):
    """Adam that shrinks the weights apart from the gradients' scale. What `torch.optim.AdamW` does."""

    learning_rate: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)  # shares that the means of gradients and of their squares keep
    epsilon: float = 1e-8  # added to the root mean square
    weight_decay: float = 0.01  # times the learning rate, the share by which a step shrinks the weights
    decay_all: bool = True  # False: weights of two axes or more only, so no bias and no batch norm
    clip_norm: float = 0.0  # largest l2 norm of all gradients together; 0: no clipping
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        descent.check(self.learning_rate, self.weight_decay, self.clip_norm)
        adaptive.check(self.betas, self.epsilon)

    def at(self, progress: float) -> Self:
        """With the learning rate that the schedule gives, and no schedule any more."""
        rate = self.learning_rate * self.schedule.factor(progress)
        return replace(self, learning_rate=rate, schedule=Constant())

    def start(self, parameters: Parameters) -> State:
        """Means of zero."""
        return adaptive.start(parameters)

    @torch.no_grad()
    def step(self, parameters: Parameters, gradients: Parameters, state: State) -> tuple[Parameters, State]:
        """The weights shrink, then one step along the means."""
        state = adaptive.follow(descent.clip(gradients, self.clip_norm), state, self.betas)
        shrunk = descent.shrink(parameters, self.learning_rate * self.weight_decay, every=self.decay_all)
        return adaptive.move(shrunk, state, self.learning_rate, self.betas, self.epsilon), state
