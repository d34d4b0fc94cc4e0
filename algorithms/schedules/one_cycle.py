"""The learning rate goes up once and down once (Smith and Topin 2018, https://arxiv.org/abs/1708.07120)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

from algorithms import checks
from algorithms.schedules import Schedule


@final
@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Climbs from a fraction of the learning rate to all of it, then falls to a much smaller fraction.

    With `shape = "linear"` and large divisors this is the triangle of fast adversarial training (Wong et al. 2020,
    https://arxiv.org/abs/2001.03994).
    """

    warmup: float = 0.3  # share of the training at which the learning rate is highest
    start_divisor: float = 25.0  # the highest factor, one, over the first
    final_divisor: float = 10_000.0  # the first factor over the last
    shape: Literal["cosine", "linear"] = "cosine"  # of the way up and of the way down

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.between("warmup", self.warmup, 0, 1, "a share of the training")
        checks.at_least("start_divisor", self.start_divisor, 1, "the highest learning rate over the first")
        checks.at_least("final_divisor", self.final_divisor, 1, "the first learning rate over the last")

    def factor(self, progress: float) -> float:
        """One at the end of the warm-up."""
        first = 1 / self.start_divisor
        if progress < self.warmup:
            return self._between(first, 1.0, progress / self.warmup)
        fallen = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        return self._between(1.0, first / self.final_divisor, fallen)

    def _between(self, begin: float, end: float, share: float) -> float:
        """From `begin` at a `share` of 0 to `end` at 1."""
        weight = share if self.shape == "linear" else (1 - math.cos(math.pi * share)) / 2
        return begin + (end - begin) * weight
