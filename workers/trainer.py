"""The trainer: takes or adds up gradients, moves the parameters, and hands out a snapshot of them."""

from __future__ import annotations

import time
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from torch import Tensor

from algorithms.averaging import average
from algorithms.control.decoupling import Solve, here
from algorithms.tensors import finite
from workers import runtime, schedule
from workers.bench import Bench
from workers.descent import SentGradient, ShardGradient, Statistics, apply_statistics, received, restore, tensor
from workers.messages import Shard, Snapshot, StepReport, Work
from workers.movement import Movement, below
from workers.ranks import Ranks

Payload = NDArray[Any] | SentGradient  # adversarial examples of a shard, or the gradient on them


@final
class Trainer:
    """Holds the one copy of the parameters that moves. Its version is the number of updates made.

    In a group every rank holds that copy, takes the gradients of some shards, and makes the same update.
    """

    def __init__(
        self,
        work: Work,
        state: NDArray[np.uint8] | None = None,
        solve: Solve = here,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """`solve` maximises layers' Hamiltonians, where the update asks for it."""
        self.bench = Bench(work)
        self.ranks = Ranks(rank, size, self.bench.device)
        self.model = Movement("", self.bench.model, work.update, solve)
        companions = self.bench.companions.items()
        self.companions = {name: Movement(f" of {name}", one.module, one.update) for name, one in companions}
        self.averaged = dict(self.model.parameters) if work.average else {}
        self.version = 0
        if state is None:
            self.bench.fit()
        else:
            self._restore(state)

    def fingerprint(self) -> tuple[runtime.Fingerprint, None]:
        """What decides the last bits of this worker's arithmetic. Answers once the worker has started."""
        return runtime.fingerprint(self.bench.device), None

    def listen(self) -> int:
        """Of a group's first rank: begins to wait for the others; returns the port."""
        return self.ranks.listen()

    def join(self, host: str, port: int, seconds: float) -> None:
        """Meets the other ranks of a group."""
        self.ranks.join(host, port, seconds)

    def step(self, step: int, *payloads: Payload) -> tuple[StepReport, Snapshot]:
        """One update from the payloads of a step's shards, in their order; in a group, of those that this rank takes.

        Raises FloatingPointError, naming the step and the cause, if a loss or a parameter is not finite; nothing has
        moved then.
        """
        if step != self.version:
            raise RuntimeError(f"step {step} does not follow version {self.version}")
        began, began_cpu = time.perf_counter(), time.process_time()
        shards = schedule.shards(self.bench.work, len(self.bench.split), step)
        mine = zip(self.ranks.mine(shards), payloads, strict=True)
        total = self.ranks.total([self._gradient(shard, payload) for shard, payload in mine], self.bench.work.reduction)
        flat = total.gradient / len(shards)
        norm = float(flat[: self.model.size].norm())
        notes = self._advance(step, flat, total.statistics)
        figures = self.bench.defense(step).settle(self.bench.network)
        loss = float(np.mean(total.losses))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        report = StepReport(step, loss, norm, seconds, cpu_seconds, figures, notes)
        return report, runtime.snapshot(self.bench.network, step + 1)

    def snapshot(self) -> tuple[None, Snapshot]:
        """The network as it is."""
        return None, runtime.snapshot(self.bench.network, self.version)

    def finished(self) -> tuple[None, Snapshot]:
        """The model to keep: the averaged parameters where the recipe averages, else the parameters."""
        weights = self.bench.model.state_dict() | self.model.settled(self.averaged or self.model.parameters)
        return None, Snapshot(self.version, runtime.flatten(weights))

    def state(self) -> tuple[None, NDArray[np.uint8]]:
        """All that a new trainer needs to go on from here, as the bytes of a safetensors file.

        Raises FloatingPointError for a number that is none: a run could never go on from there.
        """
        tensors = {"version": torch.tensor(self.version), **self.model.state("")}
        tensors |= {f"average/{name}": t.contiguous() for name, t in self.averaged.items()}
        for name, companion in self.companions.items():
            tensors |= companion.state(f"companion/{name}/")
        for name, t in tensors.items():
            if t.is_floating_point() and not finite(t):
                raise FloatingPointError(f"step {self.version}: {name} is infinite or NaN; no checkpoint is made of it")
        return None, np.frombuffer(pack(tensors), np.uint8)

    def _gradient(self, shard: Shard, payload: Payload) -> ShardGradient:
        if isinstance(payload, SentGradient):
            return received(payload, self.bench.device)
        batch = self.bench.read(shard)
        try:
            return self.bench.gradient(shard, batch, tensor(payload, self.bench.device))
        except FloatingPointError as error:
            raise FloatingPointError(f"step {shard.step}, shard {shard.number}: {error}") from error

    def _advance(self, step: int, flat: Tensor, statistics: list[dict[str, Statistics]]) -> tuple[str, ...]:
        """Moves buffers and then parameters, which may depend on them; both or, where one fails, none."""
        before = {name: buffer.clone() for name, buffer in self.bench.network.named_buffers()}
        apply_statistics(self.bench.network, statistics)
        try:
            return self._move(step, flat)
        except (FloatingPointError, ValueError):
            restore(self.bench.network, before)
            raise

    def _move(self, step: int, flat: Tensor) -> tuple[str, ...]:
        """Moves the model, and each companion by its own update; all of them or, where one fails, none."""
        movements = [self.model, *self.companions.values()]
        pieces = flat.split([movement.size for movement in movements])
        try:
            ahead = [m.ahead(piece, self.bench.progress(step)) for m, piece in zip(movements, pieces, strict=True)]
        except FloatingPointError as error:
            raise FloatingPointError(f"step {step}: {error}") from error
        for movement, moved in zip(movements, ahead, strict=True):
            movement.move(moved)
        self.version = step + 1
        if self.averaged:
            self.averaged = average(self.averaged, self.model.parameters, self.bench.work.average)
        return tuple(note for moved in ahead for note in moved.notes)

    def _restore(self, state: NDArray[np.uint8]) -> None:
        tensors = {name: t.to(self.bench.device) for name, t in unpack(state.tobytes()).items()}
        self.model.restore("", tensors)
        for name, companion in self.companions.items():
            companion.restore(f"companion/{name}/", tensors)
        self.averaged = below("average/", tensors)
        self.version = int(tensors["version"])
