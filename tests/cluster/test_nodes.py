"""Whole nodes that come and go while a run goes on: the same bits, and no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.backend import Inline
from orchestrator.cluster import Remote
from orchestrator.recipe import Workers
from tests.cluster.conftest import STORE
from tests.told import Heard
from tests.training import Notes, bits, changed
from workers.messages import Work

pytestmark = [pytest.mark.ray]
# 600 images of 8x8 pixels are more than Ray sends along with an answer: they lie on the node where they were made.
LARGE = changed(batch=1200, shard=600, epochs=6, lag=1)


class Nodes:
    """Nodes that a test adds; what is left of them goes with the test."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.there: list[Any] = []

    def add(self, cpus: int) -> Any:
        node = self.cluster.add_node(num_cpus=cpus, object_store_memory=STORE)
        self.there.append(node)
        return node

    def remove(self, node: Any) -> None:
        self.there.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[Nodes]:
    made = Nodes(cluster)
    yield made
    for node in list(made.there):
        made.remove(node)


@pytest.fixture
def full_head(cluster: Cluster) -> Iterator[None]:
    """All but one of the head's CPUs are taken, so that attackers must go elsewhere."""
    taker = ray.remote(num_cpus=7)(Taker).remote()
    ray.get(taker.here.remote())
    yield
    ray.kill(taker)


class Taker:
    def here(self) -> None: ...


ray.cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["Taker"]))  # actors cannot import this file


@contextmanager
def remote(attackers: int, work: Work) -> Iterator[tuple[Remote, Heard]]:
    heard = Heard()
    backend = Remote(Workers(attackers=attackers, trainer_cpus=1), work, heard)
    try:
        yield backend, heard
    finally:
        backend.close()


def turn_until(backend: Remote, condition: Callable[[], bool], seconds: float = 60) -> float:
    """Lets the pool work until something is so; returns how long it took."""
    began = time.monotonic()
    while not condition():
        backend.pool._turn()
        assert time.monotonic() - began < seconds
    return time.monotonic() - began


@pytest.mark.usefixtures("full_head")
def test_finished_shards_that_go_with_their_node_are_computed_again(nodes: Nodes, tmp_path: Path) -> None:
    expected = bits(Inline(LARGE), tmp_path / "inline", LARGE)

    def lose(step: int) -> None:
        if step == 1:
            turn_until(backend, lambda: len(backend.pool.done) == 2)  # the shards of the next step are finished
            nodes.add(2)
            nodes.remove(first)

    with remote(2, LARGE) as (backend, heard):
        first = nodes.add(2)  # not before: the trainer has the head's last place now
        notes = Notes(lose)
        assert bits(backend, tmp_path / "ray", LARGE, notes=notes) == expected
        events = backend.events()
    assert notes.steps == list(range(6))
    assert events["shards_lost"] >= 1
    assert events["trainer_starts"] == 1
    assert any("computed again" in sentence for sentence in heard.said)


@pytest.mark.usefixtures("full_head")
def test_attackers_join_with_a_node_and_leave_with_it(nodes: Nodes, tmp_path: Path) -> None:
    work = changed(epochs=2, lag=1)
    expected = bits(Inline(work), tmp_path / "inline", work)
    waited = []

    def ready() -> int:
        return sum(seat.ready for seat in backend.pool.seats)

    def change(step: int) -> None:
        if step == 3:
            assert ready() == 1
            later.append(nodes.add(2))
            waited.append(turn_until(backend, lambda: ready() == 3))
        if step == 10:
            nodes.remove(later[0])

    later: list[Any] = []
    with remote(3, work) as (backend, _):
        nodes.add(1)
        assert bits(backend, tmp_path / "ray", work, notes=Notes(change)) == expected
    assert waited[0] < 60
