"""A small training whose bits tests compare: batch norm, l2 attacks, augmentation, averaging, momentum.

l2, because the sign of an l-infinity step would hide differences in the last bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from algorithms.models.cnn4 import Cnn4
from algorithms.updates.sgd import SGD
from orchestrator.backend import Backend, Handle
from orchestrator.checkpoints import Checkpoints
from orchestrator.listener import Silent
from orchestrator.loop import Loop
from workers.augmentation import Augmentation
from workers.cache import open_split
from workers.datasets.digits import Digits
from workers.messages import Work

WORK = Work(
    seed=3,
    dataset=Digits(),
    augmentation=Augmentation(crop=1, flip=True),
    model=Cnn4(width=4, hidden=8),
    defense=Adversarial(attack=PGD(norm="l2", eps=0.5, step_size=0.2, steps=3)),
    update=SGD(learning_rate=0.05, momentum=0.9),
    validation=0.1,
    epochs=1,
    batch=128,
    shard=32,
    lag=0,
    exchange="examples",
    precision="float32",
    reduction="tree",
    average=0.9,
    device="cpu",
    threads=1,
)
STEPS = 10  # of one epoch


class Notes:
    """An observer that keeps what it is told, and may do something after each step."""

    def __init__(self, after: Callable[[int], None] = lambda step: None) -> None:
        self.after = after
        self.steps: list[int] = []
        self.metrics: list[dict[str, float]] = []

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)
        self.metrics.append(metrics)
        self.after(step)

    def epoch(self, epoch: int, backend: Backend, weights: Handle) -> None:
        pass

    def checkpoint(self, step: int) -> None:
        pass


def bits(backend: Backend, folder: Path, work: Work = WORK, **options: Any) -> str:
    """Digest of the weights that a training ends with. `stop`: a function that may stop it; `notes`: its observer."""
    loop = loop_of(work, backend, folder)
    notes = options.get("notes") or Notes()
    weights = loop.run(notes, Silent(), options.get("every", 1000), options.get("stop", lambda: False))
    return hashlib.sha256(backend.fetch(weights).data.tobytes()).hexdigest()


def loop_of(work: Work, backend: Backend, folder: Path | None = None) -> Loop:
    """A loop of the training; without a folder for checkpoints one that has begun, to be advanced by hand."""
    examples = len(open_split(work.dataset, "train"))
    loop = Loop(work, examples, backend, Checkpoints(folder or Path("nowhere"), Silent()), str(work))
    if folder is None:
        loop.restore()
    return loop


def changed(**fields: Any) -> Work:
    """The small training with some of its fields changed."""
    return dataclasses.replace(WORK, **fields)
