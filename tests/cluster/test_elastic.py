"""Elastic determinism on a real cluster: the same bits with any number of attackers, with faults or without."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversary_critic import AdversaryCritic
from algorithms.defenses.curriculum import Curriculum
from algorithms.defenses.dynamic import Dynamic
from orchestrator.backend import Inline
from orchestrator.cluster import Remote
from orchestrator.listener import Silent
from orchestrator.loop import Interrupted
from orchestrator.recipe import Workers
from tests.training import STEPS, WORK, Notes, bits, changed
from workers.messages import Work

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


@contextmanager
def remote(attackers: int, work: Work = WORK, deadline: float = 600) -> Iterator[Remote]:
    workers = Workers(attackers=attackers, attacker_cpus=0.5, trainer_cpus=0.5, deadline=deadline)
    backend = Remote(workers, work, Silent())
    try:
        yield backend
    finally:
        backend.close()


def processes(name: str) -> list[psutil.Process]:
    """Live processes of this test's cluster, which Ray names after their actors."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # gone, or a zombie
            if process.name().startswith("ray::") and f"::{name}" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The bits by lag, from the loop in one process."""
    return {lag: bits(Inline(WORK), tmp_path_factory.mktemp("lag"), changed(lag=lag)) for lag in (0, 1, 2)}


@pytest.mark.parametrize("attackers", [1, 2, 3])
def test_the_number_of_attackers_changes_no_bit(attackers: int, inline: dict[int, str], tmp_path: Path) -> None:
    with remote(attackers) as backend:
        for lag, expected in inline.items():
            assert bits(backend, tmp_path / str(lag), changed(lag=lag)) == expected


@pytest.mark.parametrize("lag", [0, 1])
def test_examples_that_stop_early_and_lessons_that_are_learnt_change_no_bit(lag: int, tmp_path: Path) -> None:
    attack = PGD(norm="l2", eps=0.5, step_size=0.2, steps=4)
    learns = Curriculum(attack=attack, accuracy=0.1, window=2, until=1.0)
    for name, defense in (("dynamic", Dynamic(attack=attack, c_max=None)), ("curriculum", learns)):
        work, notes = changed(defense=defense, lag=lag), Notes()
        expected = bits(Inline(work), tmp_path / name, work, notes=notes)
        saved = {m["cost/backwards_saved_per_example"] for m in notes.metrics}
        assert name == "curriculum" or len(saved) > 2  # examples stop at different steps
        for attackers in (1, 3):
            with remote(attackers, work) as backend:
                assert bits(backend, tmp_path / f"{name}{attackers}", work) == expected


def test_each_lag_has_its_own_bits(inline: dict[int, str]) -> None:
    assert len(set(inline.values())) == 3


def test_gradients_from_many_attackers_give_the_same_bits(inline: dict[int, str], tmp_path: Path) -> None:
    work = changed(exchange="gradients")
    with remote(2, work) as backend:
        assert bits(backend, tmp_path, work) == inline[0]


def test_a_killed_attacker_changes_no_bit(inline: dict[int, str], tmp_path: Path) -> None:
    def kill(step: int) -> None:
        if step in (2, 5):
            os.kill(processes("Attacker")[0].pid, signal.SIGKILL)

    notes = Notes(kill)
    with remote(2) as backend:
        assert bits(backend, tmp_path, changed(lag=1), notes=notes) == inline[1]
        assert backend.events()["requeues"] >= 1
    assert notes.steps == list(range(STEPS))


def test_a_critic_beside_the_model_changes_nothing_of_this(tmp_path: Path) -> None:
    """One attacker or three, killed on the way, gone on with elsewhere: the same bits of the model."""

    killed = []

    def kill(step: int) -> None:
        for process in processes("Attacker") if step == 4 else []:  # all: a single one may have had nothing to do
            with suppress(psutil.NoSuchProcess):
                process.kill()
                killed.append(process.pid)

    defense = AdversaryCritic(hidden=(16,), steps=2, warmup=0.2)
    work, notes = changed(defense=defense, exchange="gradients"), Notes()
    expected = bits(Inline(work), tmp_path / "inline", work)
    with remote(1, work) as backend:
        assert bits(backend, tmp_path / "one", work) == expected
    with remote(3, work) as backend:
        assert bits(backend, tmp_path / "killed", work, notes=Notes(kill)) == expected
        assert len(killed) >= 3
        with pytest.raises(Interrupted):
            bits(backend, tmp_path / "parts", work, notes=notes, stop=lambda: len(notes.steps) == 5)
    assert bits(Inline(work), tmp_path / "parts", work) == expected


def test_stopped_here_and_resumed_there(inline: dict[int, str], tmp_path: Path) -> None:
    """A run goes on with another number of workers, and even without Ray."""
    work, first = changed(lag=2), Notes()
    with remote(3, work) as backend, pytest.raises(Interrupted):
        bits(backend, tmp_path, work, notes=first, stop=lambda: len(first.steps) == 4)
    assert bits(Inline(work), tmp_path, work) == inline[2]


def test_a_killed_trainer_changes_no_bit(inline: dict[int, str], tmp_path: Path) -> None:
    killed = []

    def kill(step: int) -> None:
        if step == 6 and not killed:
            killed.append(step)
            os.kill(processes("Trainer")[0].pid, signal.SIGKILL)

    with remote(2) as backend:
        assert bits(backend, tmp_path, changed(lag=1), notes=Notes(kill), every=4) == inline[1]
        assert backend.events()["trainer_starts"] == 2


def test_an_attacker_that_hangs_costs_no_bit_and_no_wait(inline: dict[int, str], tmp_path: Path) -> None:
    """Its shard goes to an idle one long before the deadline, after which it is restarted."""

    def freeze(step: int) -> None:
        if step == 3:
            fast = min(backend.pool.seats, key=lambda seat: seat.slowness)  # it surely gets shards
            psutil.Process(pids[fast.number]).suspend()

    with remote(2, deadline=300) as backend:
        pids = [ray.get(seat.actor.__ray_call__.remote(lambda _: os.getpid())) for seat in backend.pool.seats]
        began = time.monotonic()
        assert bits(backend, tmp_path, changed(lag=1), notes=Notes(freeze)) == inline[1]
        assert time.monotonic() - began < 200
        assert backend.events()["given_again"] >= 1


def test_a_trainer_that_hangs_is_replaced(inline: dict[int, str], tmp_path: Path) -> None:
    def freeze(step: int) -> None:
        if step == 6 and backend.events()["trainer_starts"] == 1:
            processes("Trainer")[0].suspend()

    with remote(2, deadline=20) as backend:
        assert bits(backend, tmp_path, changed(lag=1), notes=Notes(freeze), every=4) == inline[1]
        assert backend.events()["trainer_starts"] == 2
