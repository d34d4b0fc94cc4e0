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
from workers import runtime, schedule
from workers.bench import Bench
from workers.descent import ShardGradient, apply_statistics, split_flat, tensor, tree_sum
from workers.messages import Shard, Snapshot, StepReport, Work

Payload = NDArray[Any] | ShardGradient  # adversarial examples of a shard, or the gradient on them


@final
class Trainer:
    """Holds the one copy of the parameters that moves. Its version is the number of updates made."""

    def __init__(self, work: Work, state: NDArray[np.uint8] | None = None) -> None:
        self.bench = Bench(work)
        self.parameters = {name: p.detach() for name, p in self.bench.model.named_parameters()}
        self.memory = work.update.start(self.parameters)
        self.averaged = dict(self.parameters) if work.average else {}
        self.version = 0
        if state is not None:
            self._restore(state)

    def fingerprint(self) -> tuple[runtime.Fingerprint, None]:
        """What decides the last bits of this worker's arithmetic. Answers once the worker has started."""
        return runtime.fingerprint(self.bench.device), None

    def step(self, step: int, *payloads: Payload) -> tuple[StepReport, Snapshot]:
        """One update from the payloads of a step's shards, in their order.

        Raises FloatingPointError, naming the step and the cause, if a loss or a parameter is not finite; nothing has
        moved then.
        """
        if step != self.version:
            raise RuntimeError(f"step {step} does not follow version {self.version}")
        began = time.perf_counter()
        shards = schedule.shards(self.bench.work, len(self.bench.split), step)
        parts = [self._gradient(shard, payload) for shard, payload in zip(shards, payloads, strict=True)]
        flat = tensor(tree_sum([part.gradient for part in parts]), self.bench.device) / len(parts)
        norm = float(flat.norm())
        self._move(step, flat)
        apply_statistics(self.bench.model, [part.statistics for part in parts])
        loss = float(np.mean([part.loss for part in parts]))
        return StepReport(step, loss, norm, time.perf_counter() - began), runtime.snapshot(self.bench.model, step + 1)

    def snapshot(self) -> tuple[None, Snapshot]:
        """The parameters as they are."""
        return None, runtime.snapshot(self.bench.model, self.version)

    def finished(self) -> tuple[None, Snapshot]:
        """The model to keep: the averaged parameters where the recipe averages, else the parameters."""
        weights = self.bench.model.state_dict() | self.averaged
        return None, Snapshot(self.version, runtime.flatten(weights))

    def state(self) -> tuple[None, NDArray[np.uint8]]:
        """All that a new trainer needs to go on from here, as the bytes of a safetensors file."""
        model = {f"model/{name}": t.contiguous() for name, t in self.bench.model.state_dict().items()}
        memory = {f"update/{name}": t.contiguous() for name, t in self.memory.items()}
        averaged = {f"average/{name}": t.contiguous() for name, t in self.averaged.items()}
        packed = pack({"version": torch.tensor(self.version), **model, **memory, **averaged})
        return None, np.frombuffer(packed, np.uint8)

    def _gradient(self, shard: Shard, payload: Payload) -> ShardGradient:
        if isinstance(payload, ShardGradient):
            return payload
        batch = self.bench.read(shard)
        try:
            return self.bench.gradient(shard, batch, tensor(payload, self.bench.device))
        except FloatingPointError as error:
            raise FloatingPointError(f"step {shard.step}, shard {shard.number}: {error}") from error

    def _move(self, step: int, flat: Tensor) -> None:
        update = self.bench.work.update.at(self.bench.progress(step))
        gradients = split_flat(flat, self.parameters)
        moved, memory = update.step(self.parameters, gradients, self.memory)
        if not all(bool(torch.isfinite(p).all()) for p in moved.values()):
            raise FloatingPointError(f"step {step}: the update makes a parameter infinite or NaN; lower learning_rate")
        self._write(moved)
        self.memory, self.version = memory, step + 1
        if self.averaged:
            self.averaged = average(self.averaged, self.parameters, self.bench.work.average)

    def _write(self, parameters: dict[str, Tensor]) -> None:
        torch._foreach_copy_(list(self.parameters.values()), list(parameters.values()))

    def _restore(self, state: NDArray[np.uint8]) -> None:
        tensors = {name: t.to(self.bench.device) for name, t in unpack(state.tobytes()).items()}
        self.bench.model.load_state_dict(_below("model/", tensors))
        self.memory = _below("update/", tensors)
        self.averaged = _below("average/", tensors)
        self.version = int(tensors["version"])


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
