"""Who is told how the work goes: a person at a terminal, or nobody."""

from __future__ import annotations

from typing import Protocol, final


class Listener(Protocol):
    """Told of stages (training, validating, evaluating, ...) and of what is worth a sentence."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """A stage of `total` units (steps, examples) begins."""

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """`done` units of the stage are finished so far; `note` says what is worth knowing now."""

    def end(self, stage: str) -> None:
        """The stage is over."""

    def say(self, message: str) -> None:
        """One sentence for a person: a worker was replaced, a server is away, a checkpoint was damaged."""


@final
class Silent:
    """Tells nobody."""

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Nothing."""

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """Nothing."""

    def end(self, stage: str) -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""
