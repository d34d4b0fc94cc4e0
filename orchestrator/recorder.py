"""What a run tells the world while it trains: records for MLflow, validation after an epoch, progress for a person."""

from __future__ import annotations

from typing import final

from orchestrator.backend import Backend, Handle
from orchestrator.listener import Listener
from orchestrator.recipe import Recipe
from orchestrator.tracking import Tracker
from orchestrator.validation import validate

STAGE = "training"


@final
class Recorder:
    """Observes a loop; each step and each epoch is recorded once, even when it is computed again."""

    def __init__(self, recipe: Recipe, examples: int, tracker: Tracker, listener: Listener) -> None:
        self.recipe, self.examples, self.tracker, self.listener = recipe, examples, tracker, listener
        self.latest: dict[str, float] = {}
        self.backend: Backend | None = None

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Records an update."""
        self.latest |= metrics
        self.tracker.metrics("step", step, metrics)
        note = f"loss {metrics['train/loss']:.3f}, {metrics['train/examples_per_second']:,.0f} examples/s"
        behind = self.backend.behind() if self.backend else ""
        self.listener.advance(STAGE, step + 1, f"{note}; {behind}" if behind else note)

    def epoch(self, epoch: int, backend: Backend, weights: Handle) -> None:
        """Measures the model on the examples kept out of the training, where the recipe says so."""
        validation = self.recipe.validation
        last = epoch + 1 == self.recipe.train.epochs
        if validation.share and ((epoch + 1) % validation.every == 0 or last):
            metrics = validate(self.recipe, self.examples, backend, weights)
            self.latest |= metrics
            self.tracker.metrics("epoch", epoch, metrics)

    def checkpoint(self, step: int) -> None:
        """Flushes the records to the disk: a step that a checkpoint holds is not made, or recorded, again."""
        self.tracker.sync()
