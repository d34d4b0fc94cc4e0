"""Shards go out by what they cost last time: by hand, by the time that workers need, and in a run."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.attacks.pgd import PGD
from algorithms.defenses.dynamic import Dynamic
from orchestrator.backend import Inline
from orchestrator.balance import Costs
from tests.training import STEPS, Notes, bits, changed
from workers import schedule
from workers.cache import open_split
from workers.messages import Shard

WORK = changed(epochs=2)
COUNT = len(open_split(WORK.dataset, "train"))
PER_EPOCH = schedule.steps_per_epoch(WORK, COUNT)


def told(prices: list[float]) -> tuple[Costs, list[Shard]]:
    """Costs that know the shards of the first step by these prices."""
    costs, shards = Costs(WORK, COUNT), schedule.shards(WORK, COUNT, 0)
    for shard, price in zip(shards, prices, strict=True):
        costs.note(shard, np.full(WORK.shard, price, np.int32))
    return costs, shards


def test_the_dearest_goes_first_and_equals_keep_their_order() -> None:
    costs, shards = told([3, 7, 3, 9])
    assert [shard.number for shard in costs.dearest_first(shards)] == [3, 1, 0, 2]
    assert [costs.expected(shard) for shard in shards] == [3, 7, 3, 9]
    unknown = schedule.shards(WORK, COUNT, 1)
    assert costs.dearest_first(unknown) == unknown


def test_an_examples_cost_follows_it_into_another_shard() -> None:
    costs = Costs(WORK, COUNT)
    price = {}
    for step in range(PER_EPOCH):
        for shard in schedule.shards(WORK, COUNT, step):
            rows = schedule.indices(WORK, COUNT, shard)
            price |= {int(row): int(row) % 7 for row in rows}
            costs.note(shard, np.array([price[int(row)] for row in rows], np.int32))
    later = schedule.shards(WORK, COUNT, PER_EPOCH)[2]
    known = [price[int(row)] for row in schedule.indices(WORK, COUNT, later) if int(row) in price]
    assert costs.expected(later) == np.mean(known)


def finished_after(prices: list[float], workers: int) -> float:
    """When workers that take the next piece as soon as they are free have done all."""
    free = [0.0] * workers
    for price in prices:
        heapq.heappush(free, heapq.heappop(free) + price)
    return max(free)


def test_all_are_done_sooner() -> None:
    costs, shards = told([2, 3, 3, 8])
    price = dict(zip(shards, [2.0, 3.0, 3.0, 8.0], strict=True))
    assert finished_after([price[shard] for shard in shards], 2) == 11
    assert finished_after([price[shard] for shard in costs.dearest_first(shards)], 2) == 8  # the best that there is


class Watching(Inline):  # type: ignore[misc] # final, but a test may look over its shoulder
    """Notes the order of submission."""

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        if method == "attack":
            self.order.append(key)
        super().submit(key, method, *arguments)


def test_in_a_run_the_second_epoch_goes_by_what_the_first_one_cost(tmp_path: Path) -> None:
    attack = PGD(norm="l2", eps=0.5, step_size=0.2, steps=6)
    work = changed(epochs=2, defense=Dynamic(attack=attack, c_max=0.3))
    backend, notes = Watching(work), Notes()
    backend.order = []
    bits(backend, tmp_path, work, notes=notes)
    steps = [[key.number for key in backend.order if key.step == step] for step in range(2 * STEPS)]
    assert steps[:STEPS] == [[0, 1, 2, 3]] * STEPS
    assert any(order != [0, 1, 2, 3] for order in steps[STEPS:])
    assert all(sorted(order) == [0, 1, 2, 3] for order in steps)
