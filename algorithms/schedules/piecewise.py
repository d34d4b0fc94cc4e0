"""The learning rate falls in steps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from algorithms import checks
from algorithms.schedules import Schedule


@final
@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """Multiplies the learning rate by `gamma` at each milestone. Epoch 150 of 350 is the milestone 150/350."""

    milestones: tuple[float, ...] = (0.5, 0.75)  # shares of the training, increasing
    gamma: float = 0.1  # factor at each of them

    def __post_init__(self) -> None:
        """Raises ValueError for milestones out of range or order."""
        for milestone in self.milestones:
            checks.between("milestones", milestone, 0, 1, "shares of the training")
        for earlier, later in pairwise(self.milestones):
            if earlier >= later:
                raise ValueError(f"milestones: increasing shares of the training, not {earlier:g} before {later:g}")
        checks.between("gamma", self.gamma, 0, 1, "the factor at a milestone")

    def factor(self, progress: float) -> float:
        """`gamma` to the number of milestones reached."""
        return self.gamma ** sum(milestone <= progress for milestone in self.milestones)
