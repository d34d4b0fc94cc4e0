"""What driver and Ray add to a step: `python -m benchmarks.cluster.control_plane [--workers 8 16 32 64]`.

Attackers that sleep instead of computing, many of them on one machine with a fraction of a CPU each: so only the
control plane works. Each worker has two shards of a quarter of a second a step, which takes half a second when nothing
is lost. The pool is the one that trains; a trainer that does nothing gets the payloads' references after each step.

The floor is what sleeping itself takes. Needs about 90 MB a worker, and a machine without other work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from workers.pool import Pool
from workers.seats import Limits

NAP, SHARDS, WARM = 0.25, 2, 3  # seconds a shard, shards a worker and step, steps before the clock starts


class Sleeper:
    """An attacker that has read its parameters and sleeps; it answers with examples of a usual size."""

    def __init__(self) -> None:
        self.answer = np.zeros((32, 1, 28, 28), np.float32)

    def fingerprint(self) -> tuple[str, None]:
        """All are alike."""
        return "sleeper", None

    def attack(self, snapshot: NDArray[np.uint8], nap: float) -> tuple[int, NDArray[np.float32]]:
        """Sleeps."""
        time.sleep(nap)
        return snapshot.nbytes, self.answer


class Updater:
    """A trainer that does nothing but read what it gets."""

    def step(self, *payloads: NDArray[np.float32]) -> tuple[int, NDArray[np.uint8]]:
        """A new snapshot of a megabyte."""
        return len(payloads), np.zeros(1 << 20, np.uint8)


def measure(workers: int, steps: int) -> tuple[float, float]:
    """Seconds of a step, median, and of the driver's own CPU in it."""
    actor = ray.remote(Sleeper).options(num_cpus=0.01, max_restarts=-1, max_task_retries=0)
    pool = Pool(actor.remote, workers, Limits(), print)
    updater = ray.remote(Updater).options(num_cpus=0.01).remote()
    snapshot: Any = ray.put(np.zeros(1 << 20, np.uint8))
    while not all(seat.ready for seat in pool.seats):
        pool._turn()
    times = []
    for step in range(WARM + steps):
        if step == WARM:
            cpu = time.process_time()
        began = time.perf_counter()
        keys = [(step, shard) for shard in range(SHARDS * workers)]
        for key in keys:
            pool.submit(key, "attack", snapshot, NAP)
        answers = pool.collect(keys)
        report, snapshot = updater.step.options(num_returns=2).remote(*[answer.payload for answer in answers])
        ray.get(report)
        times.append(time.perf_counter() - began)
    busy = (time.process_time() - cpu) / steps
    pool.close()
    ray.kill(updater)
    return statistics.median(times[WARM:]), busy


def costs() -> list[str]:
    """What a snapshot of a size takes to be stored, and a call that reads it to come back; milliseconds, medians."""
    actor = ray.remote(Sleeper).options(num_cpus=0.01).remote()
    rows = ["| snapshot | stored | a call that reads it |", "| --- | --- | --- |"]
    for size in (1, 16, 96):
        stored, called = [], []
        for _ in range(15):
            weights = np.zeros(size << 20, np.uint8)
            began = time.perf_counter()
            reference = ray.put(weights)
            stored.append(time.perf_counter() - began)
            began = time.perf_counter()
            ray.get(actor.attack.options(num_returns=2).remote(reference, 0.0)[0])
            called.append(time.perf_counter() - began)
        rows.append(f"| {size} MiB | {1e3 * statistics.median(stored):.1f} | {1e3 * statistics.median(called):.1f} |")
    ray.kill(actor)
    return rows


def main() -> None:
    """A row a number of workers, and a row a size of the model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.control_plane", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the actors need no torch
    folder = tempfile.mkdtemp(prefix="sparring", dir="/tmp")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    ideal = NAP * SHARDS
    print(f"load before: {os.getloadavg()}; a step of nothing but sleep takes {ideal} s")
    print("| workers | seconds a step | added | driver's CPU a step | throughput over linear |")
    print("| --- | --- | --- | --- | --- |")
    first = 0.0
    for workers in chosen.workers:
        seconds, cpu = measure(workers, chosen.steps)
        first = first or seconds
        print(
            f"| {workers} | {seconds:.3f} | {seconds / ideal - 1:.1%} | {cpu:.3f} s | {first / seconds:.3f} |",
            flush=True,
        )
    ray.shutdown()


if __name__ == "__main__":
    main()
