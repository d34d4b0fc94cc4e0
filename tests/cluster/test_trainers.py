"""Trainers as a group: the same bits as one of them, also when one is lost; and room for them in a full cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from orchestrator import trainers as module
from orchestrator.backend import Inline
from orchestrator.cluster import Remote
from orchestrator.cluster import remote_backend as cluster_backend
from orchestrator.recipe import Workers
from tests.cluster.test_elastic import processes
from tests.cluster.test_nodes import Nodes
from tests.told import Heard
from tests.training import STEPS, WORK, Notes, bits, changed
from workers.messages import Work

pytestmark = [pytest.mark.ray]


@contextmanager
def group_of(trainers: int, work: Work = WORK) -> Iterator[tuple[Remote, Heard]]:
    heard = Heard()
    workers = Workers(attackers=2, attacker_cpus=0.5, trainers=trainers, trainer_cpus=0.5, deadline=60)
    backend = Remote(workers, work, heard)
    try:
        yield backend, heard
    finally:
        backend.close()


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bits(Inline(WORK), tmp_path_factory.mktemp("inline"))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("trainers", "exchange"), [(4, "examples"), (3, "gradients")])
def test_the_number_of_trainers_changes_no_bit(trainers: int, exchange: str, inline: str, tmp_path: Path) -> None:
    """Three ranks have two, one and one of the four shards."""
    work = changed(exchange=exchange)
    with group_of(trainers, work) as (backend, _):
        assert bits(backend, tmp_path, work) == inline


@pytest.mark.usefixtures("cluster")
def test_a_plain_all_reduce_gives_bits_of_its_own(inline: str, tmp_path: Path) -> None:
    """The ranks have shards 0 and 2, and 1 and 3; the tree adds 0 and 1, and 2 and 3."""
    work = changed(reduction="all-reduce")
    with group_of(2, work) as (backend, _):
        assert bits(backend, tmp_path, work) != inline


@pytest.mark.usefixtures("cluster")
def test_two_trainers_that_lose_one_start_again_from_the_newest_checkpoint(inline: str, tmp_path: Path) -> None:
    def kill(step: int) -> None:
        if step == 6 and backend.events()["trainer_starts"] == 1:
            os.kill(processes("Trainer")[-1].pid, signal.SIGKILL)

    notes = Notes(kill)
    with group_of(2) as (backend, _):
        assert bits(backend, tmp_path, notes=notes, every=4) == inline
        assert backend.events()["trainer_starts"] == 2
    assert notes.steps == [*range(7), *range(4, STEPS)]


def test_a_trainer_whose_node_is_lost_gets_an_attackers_place(
    cluster: Cluster, inline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attackers have taken all the rest: those on the only node that the trainer fits on make room for it."""
    monkeypatch.setattr(module, "SOON", 1.0)
    nodes = Nodes(cluster)
    large = [nodes.add(9), nodes.add(9)]  # the head has eight

    def lose(step: int) -> None:
        if step == 4 and len(nodes.there) == 2:
            (where,) = placement_group_table(backend.trainers.place)["bundles_to_node_id"].values()
            lost = processes("Trainer")
            nodes.remove(next(node for node in large if node.node_id == where))
            psutil.wait_procs(lost, timeout=60)  # it ends some time after its node, and might be done before

    heard = Heard()
    workers = Workers(attackers=3, attacker_cpus=4.25, trainer_cpus=9, deadline=60)
    backend = Remote(workers, WORK, heard)
    try:
        assert bits(backend, tmp_path, notes=Notes(lose), every=4) == inline
        assert backend.events()["trainer_starts"] >= 2
        assert len(backend.pool.seats) == 3
    finally:
        backend.close()
        for node in list(nodes.there):
            nodes.remove(node)


@pytest.mark.usefixtures("cluster")
def test_a_trainer_that_finds_no_room_is_said_to_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that grows is waited for; this one does not."""
    monkeypatch.setenv("RAY_AUTOSCALING", "1")
    monkeypatch.setattr(module, "SOON", 0.2)
    heard = Heard()
    workers = Workers(attackers=1, attacker_cpus=0.5, trainer_cpus=999, start_deadline=1)
    room = r"no room for 1 trainer with 999 CPU each within 1 s .*the cluster has \d+ CPU"
    with cluster_backend(workers, WORK, heard, True) as backend, pytest.raises(TimeoutError, match=room):
        backend.start_trainer(None)
    assert "waiting for room for 1 trainer with 999 CPU each; the cluster has " in heard.said[0]


@pytest.mark.usefixtures("cluster")
def test_what_no_node_has_is_refused_at_once_where_none_will_come() -> None:
    wish = r"workers\.trainer_cpus = 999, .*no node has so much; there are: \d+ CPUs"
    with pytest.raises(ValueError, match=wish), cluster_backend(Workers(trainer_cpus=999), WORK, Heard(), True):
        pass
