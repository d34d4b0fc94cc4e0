"""An attacker: turns shards into adversarial examples. It keeps nothing but a cache, so any other can do its work."""

from __future__ import annotations

import math
import time
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from algorithms import balls
from algorithms.batch_norm import folded
from algorithms.diagnostics.convergence import converged
from algorithms.diagnostics.minimax import Constants, estimate
from algorithms.gradients import predict
from algorithms.modes import evaluating
from algorithms.operations import operations
from algorithms.search import Record
from algorithms.streams import Streams
from workers import runtime
from workers.bench import Batch, Bench
from workers.cache import open_split
from workers.companions import Surrogate, accompanied, built
from workers.convergence import Convergence, ball_of_training, columns
from workers.descent import SentGradient, array, sent
from workers.judge import Judged, JudgeTask, judge
from workers.messages import Shard, ShardReport, Snapshot, Work
from workers.prober import Columns, DistilTask, ProbeTask, probe, train_substitute
from workers.stability import EXAMPLES, Stability, measured

WATCHED = 8  # a step's clean accuracy is that of one image in so many, so that to see it costs next to nothing


@final
class Attacker:
    """Works on one call at a time; every call carries the parameters that it is about."""

    def __init__(self, work: Work) -> None:
        self.bench = Bench(work)
        self.opponent = runtime.lowered(self.bench.network, work.precision)  # whom examples are made against
        self.loaded = -1  # version of the parameters in both

    def fingerprint(self) -> tuple[runtime.Fingerprint, None]:
        """What decides the last bits of this worker's arithmetic. Answers once the worker has started."""
        return runtime.fingerprint(self.bench.device), None

    def attack(self, shard: Shard, taken: Snapshot) -> tuple[ShardReport, NDArray[Any] | SentGradient]:
        """Examples of a shard against the parameters `taken`, or the gradient on them, with a report.

        Raises FloatingPointError, naming step and shard, if the model's loss is not finite.
        """
        try:
            return self._attack(shard, taken)
        except FloatingPointError as error:
            raise FloatingPointError(f"step {shard.step}, shard {shard.number}: {error}") from error

    def _attack(self, shard: Shard, taken: Snapshot) -> tuple[ShardReport, NDArray[Any] | SentGradient]:
        began = time.perf_counter(), time.process_time()
        batch, record = self._make(shard, taken)
        clean = self._accuracy(batch) if shard.number == 0 else math.nan
        payload: NDArray[Any] | SentGradient = array(record.x_adv)
        if self.bench.work.exchange == "gradients":
            payload = sent(self.bench.gradient(shard, batch, record.x_adv))
        times = time.perf_counter() - began[0], time.process_time() - began[1]
        return report(shard, taken.version, record, clean, times), payload

    def converge(self, shard: Shard, taken: Snapshot) -> tuple[Convergence, None]:
        """How far the examples of a shard, made against the parameters `taken`, have converged; a row an example."""
        batch, record = self._make(shard, taken)
        ball = ball_of_training(self.bench.work.defense)
        assert ball is not None, "a defense whose attack has no ball is not measured"
        found = converged(self.bench.model, batch.x, record.x_adv, batch.y, ball)
        return columns(found, self.bench.places(shard), batch.y, record.backwards), None

    def constants(self, shard: Shard, taken: Snapshot, examples: int) -> tuple[Constants, None]:
        """The convergence theorem's constants, estimated on the first examples of a shard; see `converge`."""
        batch, record = self._make(shard, taken)
        ball = ball_of_training(self.bench.work.defense)
        assert ball is not None, "a defense whose attack has no ball is not measured"
        x, x_adv, y = batch.x[:examples], record.x_adv[:examples], batch.y[:examples]
        rng = runtime.rng_of(self.bench.work.seed, "evaluate", shard.epoch, shard.step, shard.number)
        other = x + balls.random_point(x, *ball, Streams.draw(rng, len(x), x.device))
        return estimate(self.bench.model, (x_adv, other.clamp(0, 1)), y, self.bench.work.batch), None

    def loss_passes(self, shard: Shard, taken: Snapshot) -> tuple[float, None]:
        """What the loss on a shard and its gradient cost, in forward passes of the model; see `converge`.

        Counted in operations, so that second derivatives and companions are in it. NaN for a model without any.
        """
        batch, record = self._make(shard, taken)
        with evaluating(self.bench.model), torch.no_grad():
            forward = operations(lambda: predict(self.bench.model, batch.x))
        learning = operations(lambda: self.bench.gradient(shard, batch, record.x_adv))
        return learning / forward if forward else math.nan, None

    def judge(self, task: JudgeTask, taken: Snapshot, surrogate: Surrogate | None = None) -> tuple[Judged, None]:
        """What an attack makes of some examples, a row an example (evaluation and validation)."""
        runtime.load(self.bench.model, taken)
        self.loaded = -1
        split = open_split(self.bench.work.dataset, task.part)
        return judge(self.bench.model, split, task, accompanied(self.bench, task.attack, surrogate)), None

    def probe(self, task: ProbeTask, taken: Snapshot, surrogate: Surrogate | None) -> tuple[Columns, None]:
        """What an attack or a sign of masked gradients shows on some examples (diagnosis)."""
        runtime.load(self.bench.model, taken)
        self.loaded = -1
        split = open_split(self.bench.work.dataset, "test")
        return probe(self.bench.model, split, task, surrogate and built(self.bench, surrogate)), None

    def distil(self, task: DistilTask, taken: Snapshot) -> tuple[tuple[float, Surrogate], None]:
        """A substitute for the model `taken`, and how often it agrees with it (diagnosis)."""
        runtime.load(self.bench.model, taken)
        self.loaded = -1
        split = open_split(self.bench.work.dataset, "train")
        pupil = runtime.build(task.pupil, split.shape, len(split.classes), task.seed).to(self.bench.device)
        agreement = train_substitute(self.bench.model, pupil, split, task)
        return (agreement, Surrogate(task.pupil, runtime.snapshot(pupil, 0))), None

    def _make(self, shard: Shard, taken: Snapshot) -> tuple[Batch, Record]:
        """A shard's examples and what the defense makes of them, against the parameters `taken`."""
        if self.loaded != taken.version:
            runtime.load(self.bench.network, taken)
            runtime.follow(self.opponent, self.bench.network)
            self.loaded = taken.version
        batch = self.bench.read(shard)
        rng = runtime.rng_of(self.bench.work.seed, "attack", shard.epoch, shard.step, shard.number)
        opponent = self.bench.placed(self.opponent, shard)
        with folded(opponent, exact=self.bench.network):
            return batch, self.bench.defense(shard.step).perturb(opponent, batch.x, batch.y, rng=rng)

    def stability(self, taken: Snapshot) -> tuple[Stability, None]:
        """Spectra of the weights `taken`, and how a perturbation of some training images grows through the layers."""
        runtime.load(self.bench.model, taken)
        self.loaded = -1
        images = self.bench.split.images(np.arange(min(EXAMPLES, len(self.bench.split))))
        return measured(self.bench.model, images.to(self.bench.device), self.bench.work.seed), None

    def _accuracy(self, batch: Batch) -> float:
        few = slice(max(1, self.bench.work.batch // WATCHED))
        with torch.inference_mode(), evaluating(self.bench.model):
            return (predict(self.bench.model, batch.x[few]).argmax(1) == batch.y[few]).float().mean().item()


def report(shard: Shard, version: int, record: Record, clean: float, times: tuple[float, float]) -> ShardReport:
    """The small facts about a shard that has been attacked; `times`: seconds by the clock and of the process."""
    backwards = int(record.backwards.sum())
    return ShardReport(
        shard=shard,
        version=version,
        seconds=times[0],
        cpu_seconds=times[1],
        examples=len(record.x_adv),
        forwards=int(record.forwards.sum()),
        backwards=backwards,
        spent=array(record.backwards).astype(np.int32),
        saved=int(record.backwards.max()) * len(record.backwards) - backwards,
        fooled=record.success.float().mean().item() if backwards else math.nan,
        clean_accuracy=clean,
    )
