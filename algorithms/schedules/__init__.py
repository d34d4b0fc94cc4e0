"""How does the learning rate move? One file a schedule; each is a frozen dataclass that implements `Schedule`."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Schedule(ABC):
    """A factor on the learning rate over the training."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """What the learning rate is multiplied by at `progress`, 0 at the start of the training and 1 at its end."""
