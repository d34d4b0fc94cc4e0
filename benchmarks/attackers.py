"""How much sooner two attackers are done than one: each with a trainer of its own, in turn, on one machine."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import get_args

from algorithms.models.cnn4 import Cnn4
from benchmarks.data import images
from benchmarks.measuring import Row, paired
from benchmarks.training import started, steady_seconds, work_with
from orchestrator import cluster
from orchestrator.backend import open_backend
from orchestrator.listener import Silent
from orchestrator.recipe import Workers
from workers.datasets.digits import Digits
from workers.messages import Exchange, Work

STEPS = {"digits": 10, "MNIST": 4}  # that are timed together
PAIRS = 3
ROOM = Workers(attackers=4)  # with the trainer's, CPUs for all of both


def run() -> list[Row]:
    """A row a dataset, an exchange and a lag."""
    other = images()
    works = {"digits": work_with(0)}
    if not isinstance(other, Digits):
        works["MNIST"] = work_with(0, dataset=other, width=Cnn4().width)
    with cluster.connected(ROOM, Silent()):
        return [
            doubled(name, dataclasses.replace(work, lag=lag, exchange=exchange))
            for name, work in works.items()
            for exchange in get_args(Exchange)
            for lag in (0, 1)
        ]


def doubled(name: str, work: Work) -> Row:
    """The time of some steps with two attackers over that with one."""
    with (
        open_backend(Workers(attackers=2), work, Silent()) as two,
        open_backend(Workers(attackers=1), work, Silent()) as one,
    ):
        ours, theirs = (partial(steady_seconds, started(work, backend), STEPS[name]) for backend in (two, one))
        names = f"{name}, {work.exchange} exchanged, lag {work.lag}: two attackers", "one attacker"
        return paired(names, ours, theirs, PAIRS)
