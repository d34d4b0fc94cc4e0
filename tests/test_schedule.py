"""The arithmetic of who learns what when, over every case of small runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.training import changed
from workers import schedule
from workers.runtime import STREAMS, rng_of, seed_of


@pytest.mark.parametrize(("count", "batch", "shard", "share"), [(50, 8, 4, 0.1), (64, 16, 16, 0.0), (33, 6, 2, 0.3)])
def test_an_epoch_has_each_training_example_at_most_once_and_none_held_out(
    count: int, batch: int, shard: int, share: float
) -> None:
    work = changed(batch=batch, shard=shard, validation=share)
    held_out = set(schedule.divide(count, share, work.seed).validation)
    per_epoch = schedule.steps_per_epoch(work, count)
    assert per_epoch == (count - round(share * count)) // batch
    orders = []
    for epoch in range(3):
        seen = []
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            for piece in schedule.shards(work, count, step):
                assert piece.epoch == epoch
                seen.extend(schedule.indices(work, count, piece))
        assert len(seen) == len(set(seen)) == per_epoch * batch
        assert not held_out & set(seen)
        orders.append(tuple(seen))
    assert len(set(orders)) == 3


def test_the_division_covers_everything_once() -> None:
    training, validation = schedule.divide(97, 0.25, 5)
    assert sorted([*training, *validation]) == list(range(97))
    assert len(validation) == 24
    assert not np.array_equal(schedule.divide(97, 0.25, 6).validation, validation)


def test_versions_are_exactly_lag_updates_old() -> None:
    assert [schedule.version_for(step, 2) for step in range(6)] == [0, 0, 0, 1, 2, 3]
    assert [schedule.version_for(step, 0) for step in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_the_window_needs_no_parameters_that_are_not_there_yet(lag: int) -> None:
    for step in range(10):
        ahead = list(schedule.window(step, lag, 10))
        assert ahead[0] == step
        assert all(schedule.version_for(s, lag) <= step for s in ahead)
        assert max(ahead) <= 9


def test_a_batch_larger_than_the_training_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train.batch: at most the 45 training examples that there are, not 128"):
        schedule.steps_per_epoch(changed(validation=0.1), 50)


def test_seeds_of_different_places_differ() -> None:
    places = list(itertools.product(STREAMS, range(3), range(3)))
    assert len({seed_of(0, stream, epoch, step) for stream, epoch, step in places}) == len(places)
    assert seed_of(1, "attack", 2, 3) == seed_of(1, "attack", 2, 3)
    assert rng_of(0, "loss", 1).initial_seed() == seed_of(0, "loss", 1)
