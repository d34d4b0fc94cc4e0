"""The stages of a diagnosis, in their order: the reference attack, the signs, its rivals, the growth of the radius.

A stage looks at some examples, cut into shards of a fixed size; its shards go to the attackers, and each is on the disk
as soon as it is finished. A diagnosis that was interrupted makes the same stages again and finds their shards.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from algorithms import companions, plugins
from algorithms.attacks import Attack
from algorithms.attacks.transfer import Transfer
from algorithms.balls import Norm
from algorithms.diagnostics.signs import Sign
from algorithms.diagnostics.solver_steps import SolverSteps
from orchestrator.backend import Backend, Handle
from orchestrator.budgets import Rival
from orchestrator.diagnoses.settings import Settings
from orchestrator.evaluations.figures import tolerance
from orchestrator.folders import write_atomically
from orchestrator.listener import Listener
from orchestrator.loop import Interrupted
from workers.companions import Surrogate
from workers.messages import Snapshot
from workers.prober import Columns, DistilTask, Probe, ProbeTask

Indices = NDArray[np.int64]
STEPS = "solver steps"
RADIUS = "eps = {:.4g}"  # what a stage of the growth is called


class Room(NamedTuple):
    """Where the work is done and kept."""

    backend: Backend
    model: Handle  # of the snapshot
    surrogates: dict[str, Handle]  # of other runs' models, by the names that attacks have for them
    folder: Path  # of the finished shards
    listener: Listener
    stop: Callable[[], bool]  # asked after each shard


@final
class Stages:
    """Runs stages and remembers what they found."""

    def __init__(self, settings: Settings, room: Room) -> None:
        self.settings, self.room = settings, room
        self.found: dict[str, Columns] = {}  # by label
        self.agreement: float | None = None  # of a substitute with the model
        self.number = 0

    def run(self, signs: dict[str, Sign]) -> None:
        """All stages."""
        everything = np.arange(self.settings.examples, dtype=np.int64)
        reference = self.settings.budget.reference
        self._stage(reference.label, reference.attack, everything)
        for name, sign in signs.items():
            self._stage(name, sign, everything[: self.settings.budget.signs])
        if "step_sizes" in signs:
            steps = SolverSteps(iterations=self.settings.budget.iterations)
            self._stage(STEPS, steps, everything[: self.settings.shard])
        standing = everything[~self.found[reference.label]["success"]]
        for rival in self.settings.budget.rivals:
            if self._needed(rival, signs):
                self._stage(rival.label, rival.attack, standing)
        self._grow(standing)

    def fallen(self, label: str, eps: float) -> Indices:
        """The examples that an attack moved across the boundary within the radius."""
        found = self.found[label]
        within = found[self.settings.norm] <= eps + tolerance(self.settings.norm, eps, self.settings.entries)
        fell: Indices = found["index"][found["success"] & within]
        return fell

    def _needed(self, rival: Rival, signs: dict[str, Sign]) -> bool:
        if rival.needs == "random":
            return bool(self.found["repetition"]["shows"].any())
        return rival.needs != "adaptive" or "step_sizes" in signs

    def _grow(self, standing: Indices) -> None:
        """The reference attack at radii up to the whole box, on what has not fallen yet."""
        for eps in radii(self.settings):
            label = RADIUS.format(eps)
            self._stage(label, at(self.settings.budget.reference.attack, self.settings.eps, eps), standing)
            standing = np.setdiff1d(standing, self.fallen(label, eps))

    def _stage(self, label: str, probe: Probe, indices: Indices) -> None:
        """Runs a stage, as far as it is not on the disk."""
        size, number, name = self.settings.shard, self.number, f"diagnosing: {label}"
        self.number += 1
        surrogate = self._surrogate(probe) if len(indices) else None
        shards = [indices[i : i + size] for i in range(0, len(indices), size)]
        known = [self._read(number, i, shard) for i, shard in enumerate(shards)]
        for i, shard in enumerate(shards):
            if known[i] is None:
                task = self._task(label, probe, shard)
                self.room.backend.submit(("probe", number, i), "probe", task, self.room.model, surrogate)
        self.room.listener.begin(name, len(indices), "examples")
        done: list[Columns] = []
        try:
            for i, part in enumerate(known):
                done.append(part or self._finish(number, i))
                self.room.listener.advance(name, sum(len(each["index"]) for each in done), note(done))
        finally:
            self.room.listener.end(name)
        self.found[label] = joined(done)

    def _task(self, label: str, probe: Probe, indices: Indices) -> ProbeTask:
        settings = self.settings
        return ProbeTask(
            indices=indices,
            label=label,
            seed=settings.seed,
            probe=probe,
            norm=settings.norm,
            eps=settings.eps,
        )

    def _surrogate(self, probe: Probe) -> Handle | None:
        """The network that `transfer` attacks: of the run that it names, or a substitute, trained once."""
        name = companions.surrogate_of(probe)
        if not name and not isinstance(probe, Transfer):
            return None
        if name not in self.room.surrogates:
            self.room.surrogates[name] = self.room.backend.share(self._substitute())
        return self.room.surrogates[name]

    def _substitute(self) -> Surrogate:
        """A network that has learnt what the model predicts."""
        path, wanted, settings = self.room.folder / "substitute.npz", self.settings.budget.substitute, self.settings
        stored = read(path)
        if stored is None:
            self.room.listener.say("training a substitute on the model's predictions")
            task = DistilTask(wanted.images, wanted.pupil, wanted.epochs, settings.seed, settings.norm, settings.eps)
            self.room.backend.submit("distil", "distil", task, self.room.model)
            agreement, trained = self.room.backend.collect(["distil"])[0].report
            stored = {"agreement": np.array(agreement), "data": trained.snapshot.data}
            write(path, stored)
        self.agreement = float(stored["agreement"])
        return Surrogate(wanted.pupil, Snapshot(0, stored["data"]))

    def _finish(self, stage: int, shard: int) -> Columns:
        """Waits for a shard and puts it on the disk."""
        (result,) = self.room.backend.collect([("probe", stage, shard)])
        write(self._path(stage, shard), result.report)
        if self.room.stop():
            raise Interrupted("the diagnosis was stopped; the same command goes on with it")
        columns: Columns = result.report
        return columns

    def _read(self, stage: int, shard: int, indices: Indices) -> Columns | None:
        """A finished shard, if it is there, whole, and of these examples."""
        stored = read(self._path(stage, shard))
        return stored if stored is not None and np.array_equal(stored.get("index", ()), indices) else None

    def _path(self, stage: int, shard: int) -> Path:
        return self.room.folder / f"{stage:03d}-{shard:05d}.npz"


def radii(settings: Settings) -> list[float]:
    """From beyond eps to the whole box, in equal ratios."""
    ends: dict[Norm, float] = {"linf": 1.0, "l2": settings.entries**0.5, "l1": float(settings.entries)}
    box, count = ends[settings.norm], settings.budget.growth
    return [*(settings.eps * (box / settings.eps) ** (place / count) for place in range(1, count)), box]


def at(attack: Attack, eps: float, radius: float) -> Attack:
    """The attack at another radius, its steps in proportion."""
    fields = {field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)}  # type: ignore[arg-type]
    wanted: dict[str, Any] = {"eps": radius}
    if "step_size" in fields:
        wanted["step_size"] = fields["step_size"] * radius / eps
    return dataclasses.replace(attack, **wanted)  # type: ignore[type-var]


def signs_for(network: Any) -> dict[str, Sign]:
    """The signs that make sense for a network, by name: every file in `algorithms/diagnostics/signs`."""
    interface: Any = Sign
    made: dict[str, Sign] = {name: plugins.find(interface, name)() for name in plugins.names(Sign)}
    return {name: sign for name, sign in made.items() if sign.applies(network)}


def note(done: list[Columns]) -> str:
    """What is worth knowing while a stage runs."""
    key = next((key for key in ("success", "shows") if key in done[0]), "")
    if not key:
        return ""
    count = sum(int(part[key].sum()) for part in done)
    total = sum(len(part["index"]) for part in done)
    return f"{count} of {total} {'are predicted wrongly' if key == 'success' else 'show it'}"


def joined(parts: list[Columns]) -> Columns:
    """Shards as one; without any, no row."""
    if not parts:
        nothing = np.empty(0)
        return {"index": nothing.astype(np.int64), "success": nothing.astype(bool)} | dict.fromkeys(
            ("linf", "l2", "l1"), nothing
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read(path: Path) -> Columns | None:
    """The arrays in a file; None if there is none, or it is damaged. Nothing in it can run code."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        return None


def write(path: Path, columns: Columns) -> None:
    """Arrays as a file, whole or not at all."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(columns)
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def remove(folder: Path) -> None:
    """Deletes finished shards."""
    shutil.rmtree(folder, ignore_errors=True)
