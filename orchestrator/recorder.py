"""What a run tells the world while it trains: records for MLflow, measurements after epochs, progress for a person."""

from __future__ import annotations

import math
from typing import final

from orchestrator import convergence, stability, theorem
from orchestrator.backend import Backend, Handle
from orchestrator.folders import RunFolder, write_json
from orchestrator.history import history
from orchestrator.listener import Listener
from orchestrator.plan import work_of
from orchestrator.recipe import Recipe
from orchestrator.tracking import Tracker
from orchestrator.validation import validate
from workers import schedule

STAGE = "training"
LOSS = "train/loss"
COSTS = {  # of a step, and what their sums over an epoch are called
    "cost/backwards_per_example": "cost/epoch_backwards",
    "cost/backwards_saved_per_example": "cost/epoch_backwards_saved",
    "seconds/attack": "seconds/epoch_attack",
    "seconds/attack_cpu": "seconds/epoch_attack_cpu",
    "seconds/update": "seconds/epoch_update",
    "seconds/update_cpu": "seconds/epoch_update_cpu",
}


@final
class Recorder:
    """Observes a loop; each step and each epoch is recorded once, even when it is computed again."""

    def __init__(self, recipe: Recipe, examples: int, folder: RunFolder, tracker: Tracker, listener: Listener) -> None:
        self.recipe, self.examples, self.folder = recipe, examples, folder
        self.tracker, self.listener = tracker, listener
        self.made = 0  # updates, by this process
        self.backend: Backend | None = None
        known = history(folder).series
        self.latest = {name: points[-1][1] for name, points in known.items()}
        self.kept = {name: {int(at) - 1: value for at, value in known.get(name, [])} for name in COSTS}

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Records an update, with what has changed about the workers since the one before."""
        workers = {f"workers/{k}": v for k, v in (self.backend.figures() if self.backend else {}).items()}
        metrics = metrics | {k: v for k, v in workers.items() if self.latest.get(k) != v}
        self.latest |= metrics
        self.tracker.metrics("step", step, metrics)
        for name, known in self.kept.items():
            known[step] = metrics[name]
        self.made += 1
        if self.backend:
            counts = {"step": step + 1, "examples": self.made * self.recipe.train.batch}
            self.backend.announce(self.recipe.name, counts | workers | metrics)
        note = f"loss {metrics['train/loss']:.3f}, {metrics['train/examples_per_second']:,.0f} examples/s"
        behind = self.backend.behind() if self.backend else ""
        self.listener.advance(STAGE, step + 1, f"{note}; {behind}" if behind else note)

    def epoch(self, epoch: int, backend: Backend, weights: Handle) -> None:
        """Adds up what the epoch cost, and measures what the recipe asks for: the model, and how attacks converge."""
        validation = self.recipe.validation
        last = epoch + 1 == self.recipe.train.epochs
        due = (epoch + 1) % validation.every == 0 or last
        metrics = self._costs(epoch) | self._loss_cost(epoch, backend)
        if validation.stability and due:
            metrics |= stability.record(stability.watch(backend, weights), epoch, self.folder)
        if validation.share and due:
            metrics |= validate(self.recipe, self.examples, backend, weights)
        if convergence.due(self.recipe, epoch):
            rows = convergence.measure_convergence(self.recipe, self.examples, backend, epoch)
            self.tracker.artifact(convergence.write(self.folder, rows), self.folder.convergence.name)
            metrics |= convergence.metrics_of(rows)
            if last:
                metrics |= self._theorem(backend, epoch, metrics["fosc/largest"])
        self.latest |= metrics
        self.tracker.metrics("epoch", epoch, metrics)

    def checkpoint(self, step: int) -> None:
        """Flushes the records to the disk: a step that a checkpoint holds is not made, or recorded, again."""
        self.tracker.sync()

    def _theorem(self, backend: Backend, epoch: int, delta: float) -> dict[str, float]:
        """The convergence theorem's terms at the end, from the largest condition that was seen in the last epoch."""
        losses = [loss for _, loss in history(self.folder).series[LOSS]]
        found = theorem.measure_theorem(self.recipe, self.examples, backend, epoch)
        terms = theorem.terms_of(found, delta, losses)
        write_json(self.folder.theorem, terms)
        self.tracker.artifact(self.folder.theorem, self.folder.convergence.name)
        return {f"theorem/{name}": value for name, value in terms.items() if isinstance(value, float)}

    def _loss_cost(self, epoch: int, backend: Backend) -> dict[str, float]:
        """What the loss and its gradient cost a training example, in forward passes of the model; and in the epoch."""
        shard = convergence.last_shards(self.recipe, self.examples, epoch)[0]
        backend.submit(("loss", shard), "loss_passes", shard, backend.ask_trainer("snapshot"))
        (result,) = backend.collect([("loss", shard)])
        if math.isnan(result.report):
            return {}
        work = work_of(self.recipe)
        made = schedule.steps_per_epoch(work, self.examples) * work.batch
        return {"cost/loss_passes_per_example": result.report, "cost/epoch_loss_passes": result.report * made}

    def _costs(self, epoch: int) -> dict[str, float]:
        """What an epoch cost: passes, and seconds of the workers. What those before it cost is forgotten."""
        work = work_of(self.recipe)
        per_epoch = schedule.steps_per_epoch(work, self.examples)
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        for name, known in self.kept.items():
            self.kept[name] = {step: value for step, value in known.items() if step >= steps.start}
        sums = {name: sum(self.kept[name].get(step, 0.0) for step in steps) for name in COSTS}
        cpu = sums["seconds/attack_cpu"] + sums["seconds/update_cpu"]  # no validation, no recording: the training alone
        costs = {COSTS[name]: total * (work.batch if "per_example" in name else 1) for name, total in sums.items()}
        return costs | {"seconds/epoch_cpu": cpu}
