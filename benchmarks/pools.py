"""Training with every defense on Ray with one, two and four attackers, over its passes on one core; see `defenses`."""

from __future__ import annotations

import dataclasses

from benchmarks.attackers import ROOM
from benchmarks.defenses import STEPS, over_passes, works
from benchmarks.measuring import WALL, Row
from benchmarks.training import ATTACKERS, steady_seconds
from orchestrator import cluster
from orchestrator.backend import open_backend
from orchestrator.listener import Silent
from orchestrator.loop import Loop
from orchestrator.recipe import Workers
from workers.messages import Work


def run() -> list[Row]:
    """A row a defense and number of attackers, with `lag = 1`: by the clock."""
    with cluster.connected(ROOM, Silent()):
        return [
            on_ray(name, dataclasses.replace(work, lag=1), attackers)
            for name, work in works().items()
            for attackers in ATTACKERS
        ]


def on_ray(name: str, work: Work, attackers: int) -> Row:
    """One training, with a backend of its own."""
    with open_backend(Workers(attackers=attackers), work, Silent()) as backend:
        return over_passes(f"{name}, attackers: {attackers}", work, backend, by_the_clock, WALL)


def by_the_clock(loop: Loop) -> float:
    """Seconds of some steps."""
    return steady_seconds(loop, STEPS)
