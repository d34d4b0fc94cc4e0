"""The stages of an evaluation, in their order: clean images, each attack, then other radii for the curve.

A stage looks at some examples, cut into shards of a fixed size; its shards go to the attackers, and each is on the disk
as soon as it is finished. What a stage looks at depends on what the stages before it found, and on nothing else: an
evaluation that was interrupted makes the same stages again and finds their finished shards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from algorithms import companions
from algorithms.attacks import Attack
from algorithms.search import Policy
from orchestrator.backend import Backend, Handle
from orchestrator.evaluations import figures
from orchestrator.evaluations.parts import Part, Parts, none_kept, rows_of, together
from orchestrator.evaluations.settings import Settings
from orchestrator.listener import Listener
from orchestrator.loop import Interrupted
from orchestrator.suites import Entry
from workers.judge import JudgeTask, Kept

KEEP = 24  # images of the shown attack that stay, from the first
Indices = NDArray[np.int64]


class Stage(NamedTuple):
    """One pass over some examples."""

    number: int
    label: str
    attack: Attack | None
    eps: float
    targets: int
    policy: Policy
    indices: Indices
    keep: int


class Crew(NamedTuple):
    """Who does the work, and on what."""

    backend: Backend
    model: Handle  # of the evaluated model's snapshot
    surrogates: Mapping[str, Handle]  # of other models, by the names that attacks have for them


@final
class Stages:
    """Runs stages and remembers what they found."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        crew: Crew,
        listener: Listener,
        stop: Callable[[], bool],
    ) -> None:
        """`stop` is asked after each shard."""
        self.settings, self.parts, self.listener, self.stop = settings, parts, listener, stop
        self.backend, self.crew = crew.backend, crew
        self.tables: list[Any] = []
        self.kept: Kept = none_kept()
        self.nearest = np.full(settings.examples, math.inf)  # distance of the nearest known adversarial image

    def run(self) -> None:
        """All stages."""
        everything = np.arange(self.settings.examples, dtype=np.int64)
        self._stage(Stage(0, "clean", None, 0.0, 0, "first success", everything, 0))
        for number, entry in enumerate(self.settings.suite.attacks, 1):
            still = everything if entry.examples == "all" else np.flatnonzero(self._stands(self.settings.eps))
            self._attack(number, entry, still)
        self._sweep()

    def rows(self) -> Any:
        """The rows of all stages as one table."""
        return together(self.tables)

    def _sweep(self) -> None:
        """Other radii: each asks only the examples that it can still decide.

        Who fell at a radius has fallen at every larger one; who withstood one is taken to withstand the smaller ones.
        With `every` all are asked: cross-entropy and precision error are means over the same examples everywhere.
        """
        curve, settings = self.settings.suite.curve, self.settings
        if curve is None:
            return
        looked_at = np.arange(settings.examples) < (curve.examples or settings.examples)
        larger = settings.eps
        for entry in sorted(settings.suite.sweep, key=lambda e: e.eps if e.eps > settings.eps else -e.eps):
            undecided = looked_at & (curve.every | self._stands(entry.eps))
            if entry.eps < settings.eps and not curve.every:
                undecided &= ~self._stands(larger)
                larger = entry.eps
            number = 1 + len(settings.suite.attacks) + settings.suite.sweep.index(entry)
            self._attack(number, entry, np.flatnonzero(undecided))

    def _stands(self, eps: float) -> NDArray[np.bool_]:
        return figures.standing(self.nearest, self.settings.norm, eps, self.settings.entries)

    def _attack(self, number: int, entry: Entry, indices: Indices) -> None:
        keep = KEEP if entry.label == self.settings.suite.shown else 0
        self._stage(Stage(number, entry.label, entry.attack, entry.eps, entry.targets, entry.policy, indices, keep))

    def _stage(self, stage: Stage) -> None:
        """Runs a stage, as far as it is not on the disk, and notes what it found."""
        size, name = self.settings.shard, f"evaluating: {stage.label}"
        models = self.crew.model, self.crew.surrogates.get(companions.surrogate_of(stage.attack))
        shards = [stage.indices[i : i + size] for i in range(0, len(stage.indices), size)]
        known = [self.parts.read(stage.number, i, shard, kept(stage, i)) for i, shard in enumerate(shards)]
        for i, shard in enumerate(shards):
            if known[i] is None:
                self.backend.submit(("judge", stage.number, i), "judge", self._task(stage, i, shard), *models)
        self.listener.begin(name, len(stage.indices), "examples")
        done, fallen = 0, 0
        try:
            for i, part in enumerate(known):
                finished = part or self._finish(stage, i)
                self._note(finished)
                done, fallen = done + finished.rows.num_rows, fallen + int(finished.rows["success"].to_numpy().sum())
                self.listener.advance(name, done, f"{fallen} of {done} are predicted wrongly")
        finally:
            self.listener.end(name)

    def _task(self, stage: Stage, shard: int, indices: Indices) -> JudgeTask:
        return JudgeTask(
            part="test",
            indices=indices,
            attack=stage.attack,
            label=stage.label,
            seed=self.settings.seed,
            targets=stage.targets,
            keep=kept(stage, shard),
            policy=stage.policy,
            lipschitz=self.settings.lipschitz if stage.attack is None else 0.0,
        )

    def _finish(self, stage: Stage, shard: int) -> Part:
        """Waits for a shard and puts it on the disk."""
        (result,) = self.backend.collect([("judge", stage.number, shard)])
        part = Part(rows_of(result.report, stage.label, stage.eps), result.report.kept)
        self.parts.write(stage.number, shard, part)
        if self.stop():
            raise Interrupted("the evaluation was stopped; the same command goes on with it")
        return part

    def _note(self, part: Part) -> None:
        """Adds a part's rows, and the adversarial images in it to what is known of the examples."""
        self.tables.append(part.rows)
        if len(part.kept.index):
            self.kept = part.kept
        rows = part.rows["index"].to_numpy()
        found = np.where(part.rows["success"].to_numpy(), part.rows[self.settings.norm].to_numpy(), math.inf)
        self.nearest[rows] = np.minimum(self.nearest[rows], found)


def kept(stage: Stage, shard: int) -> int:
    """From how many rows of a shard the images stay: those of the first shard."""
    return stage.keep if shard == 0 else 0
