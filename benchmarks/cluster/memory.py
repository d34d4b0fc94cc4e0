"""Whether memory stays flat: `python -m benchmarks.cluster.memory [--steps 2000]`, on two cores in some minutes.

A real training of digits on two attackers whose loop goes on and on. Every so many steps the resident memory of driver,
trainer and attackers and the used part of Ray's object store are read. A line is fitted to the second half, when all
caches are full: its slope is what a run gains a thousand steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os

import numpy as np
import psutil
import ray

from benchmarks.training import started, work_with
from orchestrator.backend import open_backend
from orchestrator.listener import Silent
from orchestrator.recipe import Workers

READINGS = 100
MIB = 1 << 20


def readings() -> dict[str, float]:
    """MiB by who has them."""
    below = psutil.Process().children(recursive=True)
    found = {"driver": psutil.Process().memory_info().rss / MIB}
    for process in below:
        name = " ".join(process.cmdline()).removeprefix("ray::").partition(".")[0]
        if name in ("Attacker", "Trainer"):
            found[f"{name.lower()} {process.pid}"] = process.memory_info().rss / MIB
    there, free = ray.cluster_resources(), ray.available_resources()
    name = "object_store_memory"
    return found | {"object store": (there.get(name, 0) - free.get(name, 0)) / MIB}


def main() -> None:
    """A row a process: how much it has, and how fast that grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.memory", description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    work = dataclasses.replace(work_with(1), batch=64, shard=32, epochs=10 * steps)
    print(f"load before: {os.getloadavg()}")
    found: list[tuple[int, dict[str, float]]] = []
    with open_backend(Workers(attackers=2), work, Silent()) as backend:
        loop = started(work, backend)
        for step in range(steps):
            loop.advance()
            loop.step += 1
            if step % max(1, steps // READINGS) == 0:
                gc.collect()
                found.append((step, readings()))
    print(f"| after {steps} steps | MiB | MiB gained a thousand steps, over the second half |")
    print("| --- | --- | --- |")
    late = found[len(found) // 2 :]
    for name in late[-1][1]:
        points = [(step, values[name]) for step, values in late if name in values]
        slope = np.polyfit([s for s, _ in points], [v for _, v in points], 1)[0] * 1000
        print(f"| {name.partition(' ')[0] if name[-1].isdigit() else name} | {points[-1][1]:.0f} | {slope:+.2f} |")


if __name__ == "__main__":
    main()
