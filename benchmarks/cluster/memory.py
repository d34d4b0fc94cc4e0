"""Whether memory stays flat: `python -m benchmarks.cluster.memory [--epochs 100]`, on two cores in some minutes.

A real run, as `sparring train` makes it, of digits on two attackers, 20 steps an epoch: with checkpoints, gauges and
records for MLflow. Every so many steps the resident memory of driver, trainer, attackers and Ray's own processes is
read, and how much of its object store is used. A line is fitted to the second half, when all caches are full: its slope
is what a run gains a thousand steps. Beside it stands its 95 % interval, from the scatter of the readings.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import psutil
import ray

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from algorithms.models.cnn4 import Cnn4
from orchestrator.recipe import Evaluation, Recipe, Tracking, Train, Validation, Workers
from orchestrator.run import train

STEPS = 20  # an epoch
READINGS = 100
MIB = 1 << 20
NAMES = {"Attacker": "an attacker", "Trainer": "the trainer", "raylet": "Ray's raylet", "gcs_server": "Ray's control"}


class Line(NamedTuple):
    """What was fitted to readings of memory, MiB."""

    last: float
    slope: float  # a thousand steps
    error: float  # of the slope; 1.96 standard errors


def fitted(steps: list[int], values: list[float]) -> Line:
    """A line through the second half of the readings."""
    half = len(steps) // 2
    x, y = np.array(steps[half:]) / 1000, np.array(values[half:])
    slope, start = np.polyfit(x, y, 1)
    scatter = float(np.sum((y - start - slope * x) ** 2)) / max(len(x) - 2, 1)
    return Line(values[-1], float(slope), 1.96 * (scatter / float(np.sum((x - x.mean()) ** 2))) ** 0.5)


@final
class Reader:
    """A listener that reads memory while the run goes on."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.steps: list[int] = []
        self.found: dict[str, list[float]] = defaultdict(list)
        self.known: dict[int, str] = {}  # processes, by their ids

    def say(self, message: str) -> None:
        """What the run says: of lost workers, for one, whose readings would be in vain."""
        print(message, flush=True)

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Nothing to read yet."""

    def end(self, stage: str) -> None:
        """Nothing to read any more."""

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """Reads, if it is time to."""
        if stage == "training" and done % self.every == 0:
            self.steps.append(done)
            for name, size in self.read().items():
                self.found[name].append(size)

    def read(self) -> dict[str, float]:
        """MiB by who has them."""
        if not self.known:
            for process in psutil.Process().children(recursive=True):
                command = " ".join(process.cmdline())
                named = [name for name in NAMES if f"ray::{name}" in command or f"/{name}" in command.split(" ")[0]]
                self.known |= {process.pid: f"{NAMES[named[0]]} ({process.pid})"} if named else {}
        sizes = {name: resident(pid) for pid, name in sorted(self.known.items())}
        return {"the driver": resident(os.getpid())} | sizes | {"the object store's use": stored()}


def resident(pid: int) -> float:
    """A process's own memory, MiB: without what it shares, such as the object store."""
    memory = psutil.Process(pid).memory_info()
    return float(memory.rss - memory.shared) / MIB


def stored() -> float:
    """What the object store holds, MiB, as Ray tells Prometheus every some seconds."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("ray_object_store_memory{")) / MIB


def recipe(epochs: int, folder: str) -> Recipe:
    """A run with small steps."""
    return Recipe(
        name="memory",
        model=Cnn4(width=16, hidden=128),
        defense=Adversarial(attack=PGD(eps=0.2, step_size=0.1, steps=3)),
        train=Train(epochs=epochs, batch=64, shard=32, lag=1),
        validation=Validation(share=0.1, every=epochs),
        evaluation=Evaluation(suite="demo", examples=8),
        workers=Workers(attackers=2),
        tracking=Tracking(folder=folder),
    )


def main() -> None:
    """A row a process: how much it has, and how fast that grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.memory", description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--json", type=Path, help="also write every reading here")
    chosen = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    reader = Reader(max(1, chosen.epochs * STEPS // READINGS))
    print(f"load before: {os.getloadavg()}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        train(recipe(chosen.epochs, folder), listener=reader)
    print(f"| after {reader.steps[-1]} steps | MiB | MiB gained a thousand steps, over the second half |")
    print("| --- | --- | --- |")
    for name, values in reader.found.items():
        line = fitted(reader.steps, values)
        print(f"| {name.partition(' (')[0]} | {line.last:.0f} | {line.slope:+.2f} ± {line.error:.2f} |")
    if chosen.json:
        chosen.json.write_text(json.dumps({"steps": reader.steps} | reader.found) + "\n")


if __name__ == "__main__":
    main()
