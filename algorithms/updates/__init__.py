"""How do parameters move? One file an update; each is a frozen dataclass that implements `Update`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor

Parameters = dict[str, Tensor]  # by the model's own names, in the model's order
State = dict[str, Tensor]  # what an update remembers, flat, so that a checkpoint is plain tensors


class Update(ABC):
    """One step from parameters and gradients to new parameters. Nothing is changed in place."""

    def at(self, progress: float) -> Self:
        """The update at a point of the training, 0 at its start and 1 at its end. A schedule returns a new value."""
        return self

    @abstractmethod
    def start(self, parameters: Parameters) -> State:
        """What is remembered before the first step."""

    @abstractmethod
    def step(self, parameters: Parameters, gradients: Parameters, state: State) -> tuple[Parameters, State]:
        """The parameters and the state after one step against `gradients`."""
