"""Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1)."""

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
class Adam(Update):
    """Scales each entry's step by the root mean square of its gradients. What `torch.optim.Adam` does.

    Weight decay is added to the gradients here, and scaled with them; `adamw` keeps it apart.
    """

    learning_rate: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)  # shares that the means of gradients and of their squares keep
    epsilon: float = 1e-8  # added to the root mean square
    weight_decay: float = 0.0  # factor on the weights that is added to their gradients
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
        """One step along the means, which have seen the penalised gradients."""
        gradients = descent.clip(gradients, self.clip_norm)
        gradients = descent.penalise(gradients, parameters, self.weight_decay, every=self.decay_all)
        state = adaptive.follow(gradients, state, self.betas)
        return adaptive.move(parameters, state, self.learning_rate, self.betas, self.epsilon), state
