"""The learning rate falls along half a cosine (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from algorithms import checks
from algorithms.schedules import Schedule


@final
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Climbs from `floor` to one along a line during the warm-up, then goes back along half a cosine."""

    floor: float = 0.0  # factor at the end, and at the start of a warm-up
    warmup: float = 0.0  # share of the training

    def __post_init__(self) -> None:
        """Raises ValueError for numbers outside [0, 1]."""
        checks.between("floor", self.floor, 0, 1, "the final factor")
        checks.between("warmup", self.warmup, 0, 1, "a share of the training")

    def factor(self, progress: float) -> float:
        """One at the end of the warm-up."""
        if progress < self.warmup:
            return self.floor + (1 - self.floor) * progress / self.warmup
        fallen = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * fallen)) / 2
