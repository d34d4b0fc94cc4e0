"""The training loop. No tensor passes through it: shards and snapshots travel as names and handles.

Invariants. A step's shards are attacked with the snapshot exactly `lag` updates old. A step is confirmed before the
next is submitted. Whatever is lost is computed again from the newest checkpoint, so the bits never change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, final

from orchestrator.backend import Backend, ExamplesLost, Handle, Result, TrainerLost
from orchestrator.balance import Costs
from orchestrator.checkpoints import Checkpoint, Checkpoints
from orchestrator.listener import Listener
from orchestrator.metrics import StepTimes, step_metrics
from workers import schedule
from workers.messages import Snapshot, Work

PATIENCE = 5  # recoveries in a row without a step between them


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop; a checkpoint holds all that was done."""


class Observer(Protocol):
    """What a loop reports to."""

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Update number `step` (from 0) is made."""

    def epoch(self, epoch: int, backend: Backend, weights: Handle) -> None:
        """Epoch number `epoch` (from 0) is over; `weights` is the handle of the model as it would be kept."""

    def checkpoint(self, step: int) -> None:
        """A checkpoint after `step` updates is about to be written: what was told so far must not get lost."""


@final
class Loop:
    """One run from where its newest checkpoint stands to its end."""

    def __init__(self, work: Work, examples: int, backend: Backend, checkpoints: Checkpoints, digest: str) -> None:
        self.work, self.examples, self.backend = work, examples, backend
        self.checkpoints, self.digest = checkpoints, digest
        self.per_epoch = schedule.steps_per_epoch(work, examples)
        self.steps = work.epochs * self.per_epoch
        self.snapshots: dict[int, Handle] = {}
        self.step = 0
        self.costs = Costs(work, examples)
        self.submitted = 0  # steps before this one have their shards submitted
        self.notes: tuple[str, ...] = ()  # of the last step

    def run(self, observer: Observer, listener: Listener, every: int, stop: Callable[[], bool]) -> Handle:
        """Trains to the end and returns the handle of the model to keep.

        Raises Interrupted, after a checkpoint, once `stop()` is true, RuntimeError, after one, once the backend is in
        trouble, and FloatingPointError if the run diverges.
        """
        recoveries = 0
        restored = False
        said: set[str] = set()
        while True:
            try:
                if not restored:
                    self.restore()
                    restored = True
                if self.step == self.steps:
                    return self.backend.ask_trainer("finished")
                metrics = self.advance()
                for note in {*self.notes} - said:  # once: what fails at a step often fails at the next
                    listener.say(f"step {self.step}: {note}")
                said.update(self.notes)
                self.step += 1
                self._after(metrics, observer, every, stop)
                recoveries = 0
            except TrainerLost as error:
                recoveries += 1
                if recoveries > PATIENCE:
                    raise RuntimeError(f"the trainer was lost {recoveries} times in a row: {error}") from error
                restored = False
                listener.say(f"{error}; going back to the newest checkpoint")

    def restore(self) -> None:
        """Goes back to the newest checkpoint, or to the start."""
        checkpoint = self.checkpoints.newest(self.digest)
        self.backend.start_trainer(None if checkpoint is None else checkpoint.trainer)
        self.step = self.submitted = 0 if checkpoint is None else checkpoint.step
        older = {} if checkpoint is None else checkpoint.snapshots
        self.snapshots = {version: self.backend.share(Snapshot(version, data)) for version, data in older.items()}
        self.snapshots[self.step] = self.backend.ask_trainer("snapshot")

    def advance(self) -> dict[str, float]:
        """Makes one update and returns what is known of it."""
        began = time.perf_counter()
        for ahead in schedule.window(self.step, self.work.lag, self.steps):
            if ahead >= self.submitted:
                self.submit(ahead)
        results = self._collect()
        collected = time.perf_counter()
        for result in results:
            self.costs.note(result.report.shard, result.report.spent)
        report, self.snapshots[self.step + 1] = self._update(results)
        self.notes = report.notes
        times = StepTimes(total=time.perf_counter() - began, waited=collected - began)
        for version in [v for v in self.snapshots if v < schedule.version_for(self.step + 1, self.work.lag)]:
            del self.snapshots[version]
        return step_metrics(report, [result.report for result in results], times)

    def submit(self, step: int) -> None:
        """Hands out the shards of a step."""
        version = schedule.version_for(step, self.work.lag)
        for shard in self.costs.dearest_first(schedule.shards(self.work, self.examples, step)):
            self.backend.submit(shard, "attack", shard, self.snapshots[version])
        self.submitted = max(self.submitted, step + 1)

    def checkpoint(self) -> None:
        """Writes all that a later run needs to go on from here."""
        fetch = self.backend.fetch
        trainer = fetch(self.backend.ask_trainer("state"))
        older = {version: fetch(handle).data for version, handle in self.snapshots.items() if version < self.step}
        self.checkpoints.write(Checkpoint(self.step, trainer, older, self.digest))

    def _collect(self) -> list[Result]:
        return self.backend.collect(schedule.shards(self.work, self.examples, self.step))

    def _update(self, results: list[Result]) -> tuple[Any, Handle]:
        """The trainer's step; where finished shards were lost with their node, they are computed again."""
        for _ in range(PATIENCE):
            try:
                return self.backend.step(self.step, [result.payload for result in results])
            except ExamplesLost:
                self.submit(self.step)
                results[:] = self._collect()
        raise TrainerLost("the examples of a step were lost again and again")

    def _after(self, metrics: dict[str, float], observer: Observer, every: int, stop: Callable[[], bool]) -> None:
        observer.step(self.step - 1, metrics)
        epoch, within = divmod(self.step, self.per_epoch)
        if within == 0:
            observer.epoch(epoch - 1, self.backend, self.backend.ask_trainer("finished"))
        trouble = self.backend.trouble()
        stopping = (stop() or trouble != "") and self.step < self.steps
        if within == 0 or self.step % every == 0 or stopping:
            observer.checkpoint(self.step)
            self.checkpoint()
        if stopping and trouble:
            raise RuntimeError(f"{trouble}; the same command goes on after step {self.step} of {self.steps}")
        if stopping:
            raise Interrupted(f"stopped after step {self.step} of {self.steps}")
