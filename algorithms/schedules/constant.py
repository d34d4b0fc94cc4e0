"""The learning rate as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from algorithms.schedules import Schedule


@final
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same learning rate from start to end."""

    def factor(self, progress: float) -> float:
        """One."""
        return 1.0
