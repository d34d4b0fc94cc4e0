"""The learning rate falls by the same factor again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from algorithms import checks
from algorithms.schedules import Schedule


@final
@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiplies the learning rate by `gamma` after each of `falls` equal parts of the training: its epochs, say."""

    gamma: float = 0.95  # factor of a fall
    falls: int = 100  # equal parts of the training, each lower than the one before

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.between("gamma", self.gamma, 0, 1, "the factor of a fall")
        checks.at_least("falls", self.falls, 1, "a number of equal parts of the training")

    def factor(self, progress: float) -> float:
        """`gamma` to the number of parts that are over."""
        over = math.floor(progress * self.falls + 1e-9)  # k / steps * falls may come out just below a whole number
        return self.gamma**over
