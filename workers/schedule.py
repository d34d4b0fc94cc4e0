"""Which examples, when: pure arithmetic on the run's seed. Nothing is stored, so nothing has to be restored.

A step is counted over the whole run, and its number is also the version of the parameters before it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.messages import Shard, Work
from workers.runtime import seed_of

Indices = NDArray[np.int64]


class Division(NamedTuple):
    """The training part of a dataset, divided by the run's seed."""

    training: Indices
    validation: Indices


@functools.lru_cache(maxsize=4)
def divide(count: int, share: float, seed: int) -> Division:
    """Divides `count` examples: `share` of them, rounded, for validation and the rest for training, both ascending."""
    order = np.random.default_rng(seed_of(seed, "split")).permutation(count)
    held_out = round(share * count)
    return Division(np.sort(order[held_out:]), np.sort(order[:held_out]))


def steps_per_epoch(work: Work, count: int) -> int:
    """Whole batches in the training division of `count` examples, as often as each is learnt from in a row.

    Raises ValueError if there is not one batch.
    """
    available = len(divide(count, work.validation, work.seed).training)
    if available < work.batch:
        raise ValueError(f"train.batch: at most the {available} training examples that there are, not {work.batch}")
    return available // work.batch * work.replays


def shards(work: Work, count: int, step: int) -> list[Shard]:
    """The shards of a step, in their order."""
    epoch = step // steps_per_epoch(work, count)
    return [Shard(epoch, step, index) for index in range(work.batch // work.shard)]


@functools.lru_cache(maxsize=4)
def _order(count: int, share: float, seed: int, epoch: int) -> Indices:
    """The training examples in the order of an epoch."""
    training = divide(count, share, seed).training
    return training[np.random.default_rng(seed_of(seed, "order", epoch)).permutation(len(training))]


def indices(work: Work, count: int, shard: Shard) -> Indices:
    """The examples of a shard, as indices into the training part of `count` examples."""
    within = (shard.step - shard.epoch * steps_per_epoch(work, count)) // work.replays
    start = within * work.batch + shard.number * work.shard
    return _order(count, work.validation, work.seed, shard.epoch)[start : start + work.shard]


def version_for(step: int, lag: int) -> int:
    """The version of the parameters that the attacks of `step` see: exactly `lag` updates old, as far as there are."""
    return max(0, step - lag)


def progress(step: int, steps: int) -> float:
    """How far a run of `steps` has come before `step`, in [0, 1)."""
    return step / steps


def window(step: int, lag: int, steps: int) -> Iterator[int]:
    """The steps whose shards may be under way while `step` is collected."""
    return iter(range(step, min(step + lag, steps - 1) + 1))
