"""What travels between driver and workers: names of work, never the data that they can derive or read themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from algorithms.defenses import Defense
from algorithms.models import Model
from algorithms.updates import Update
from workers.augmentation import Augmentation
from workers.datasets import Dataset

Precision = Literal["float32", "bfloat16"]
Reduction = Literal["tree", "all-reduce"]
Exchange = Literal["examples", "gradients"]


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker must know of a run. The number of workers is not in it: no result depends on it.

    But for `reduction`: "all-reduce" gives other last bits for each number of trainers.
    """

    seed: int
    dataset: Dataset
    augmentation: Augmentation
    model: Model
    defense: Defense
    update: Update
    validation: float  # share of the training part that is kept out
    epochs: int
    batch: int
    shard: int
    lag: int
    exchange: Exchange
    precision: Precision  # of the passes that make examples
    reduction: Reduction  # how several trainers add up gradients
    average: float  # decay of the moving average of weights; 0: none
    replays: int = 1  # steps in a row with the same batch
    label_smoothing: float = 0.0  # share of each label that all classes get alike
    weight_perturbation: float = 0.0  # of each weight, relative to its norm
    device: Literal["cpu", "cuda"]
    threads: int


class Shard(NamedTuple):
    """A fixed-size piece of a training batch, by name."""

    epoch: int
    step: int  # counted over the whole run; also the version of the parameters before it
    number: int  # within the batch


class Snapshot(NamedTuple):
    """Parameters and buffers of a network after `version` updates, as one flat array of bytes."""

    version: int
    data: NDArray[np.uint8]


class ShardReport(NamedTuple):
    """What an attacker tells the driver about a shard; the examples themselves go to the trainer."""

    shard: Shard
    version: int  # of the parameters that were attacked
    seconds: float
    cpu_seconds: float  # of the worker's process; on a machine that others use too, the steadier one
    examples: int
    forwards: int  # passes over single examples
    backwards: int
    spent: NDArray[np.int32]  # backward passes of each example
    saved: int  # backward passes that rows which left the shard early did not make: against its longest row
    fooled: float  # share of the examples that fool the attacked model; NaN if it was not measured
    clean_accuracy: float  # of the attacked model on a share of the first shard of a step; NaN for other shards


class StepReport(NamedTuple):
    """What the trainer tells the driver about an update."""

    step: int
    loss: float
    gradient_norm: float  # of the model's parameters
    seconds: float
    cpu_seconds: float  # of the trainer's process
    figures: dict[str, float]  # what the defense says of the step, by name
    notes: tuple[str, ...]  # what a person should know of it: a solver that failed, say
