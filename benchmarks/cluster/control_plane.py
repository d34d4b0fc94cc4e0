"""What driver and Ray add to a step: `python -m benchmarks.cluster.control_plane [--workers 8 16 32 64] [--places 8]`.

Attackers that sleep instead of computing, many of them on one machine with a fraction of a CPU each: so only the
control plane works. Each has two shards of a quarter of a second a step, which takes half a second when nothing is
lost. Loop and pool are those that train; a trainer that does nothing gets the examples' references after each step.

Processes that sleep are not free: they share this machine's cores with the driver, as they would not in a cluster. So
the CPU time of driver, Ray and attackers is given apart; and with `--places 8` eight attackers share a process, which
changes nothing for the driver. Needs about 90 MB a process, and a machine without other work.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import psutil
import ray
from numpy.typing import NDArray

from benchmarks.training import started, work_with
from orchestrator.backend import Backend, Handle, Result
from workers.messages import Shard, ShardReport, StepReport
from workers.pool import Pool
from workers.seats import Limits

NAP, SHARDS, WARM = 0.25, 2, 3  # seconds a shard, shards an attacker and step, steps before the clock starts
SHARD = 8  # examples; so that 64 attackers' batch is within the digits
SPENT = np.zeros(SHARD, np.int32)
TINY = {"num_cpus": 0.01, "max_task_retries": 0, "enable_task_events": False}  # as the run's own actors


class Sleeper:
    """An attacker that has read its parameters and sleeps; it answers with examples of a usual size."""

    def __init__(self) -> None:
        self.answer = np.zeros((32, 1, 28, 28), np.float32)

    def fingerprint(self) -> tuple[str, None]:
        """All are alike."""
        return "sleeper", None

    def attack(
        self, shard: tuple[int, ...], snapshot: NDArray[np.uint8], nap: float
    ) -> tuple[int, NDArray[np.float32]]:
        """Sleeps."""
        time.sleep(nap)
        return snapshot.nbytes, self.answer


class Updater:
    """A trainer that does nothing but read what it gets."""

    def step(self, *payloads: NDArray[np.float32]) -> tuple[int, NDArray[np.uint8]]:
        """A new snapshot of a megabyte."""
        return len(payloads), np.zeros(1 << 20, np.uint8)


@final
class Asleep(Backend):
    """The pool that trains, with sleepers in it."""

    def __init__(self, attackers: int, places: int) -> None:
        """`places`: attackers that share a process."""
        hire = ray.remote(Sleeper).options(max_restarts=-1, max_concurrency=places, **TINY)
        processes = itertools.cycle([hire.remote() for _ in range(attackers // places)])
        self.pool = Pool(lambda: next(processes), attackers, Limits(), print)
        self.trainer: Any = ray.remote(Updater).options(**TINY).remote()
        while not all(seat.ready for seat in self.pool.seats):
            self.pool._turn()

    def share(self, value: Any) -> Handle:
        """Into the object store."""
        return ray.put(value)

    def fetch(self, handle: Handle) -> Any:
        """Out of the object store."""
        return ray.get(handle)

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """To the pool."""
        self.pool.submit(key, method, tuple(arguments[0]), arguments[-1], NAP)  # a class would bring torch along

    def collect(self, keys: Sequence[Hashable]) -> list[Result]:
        """From the pool, with reports as attackers write them."""
        found = zip(keys, self.pool.collect(keys), strict=True)
        return [Result(report(key), answer.payload) for key, answer in found if isinstance(key, Shard)]

    def start_trainer(self, state: NDArray[np.uint8] | None) -> None:
        """It is there."""

    def step(self, step: int, payloads: Sequence[Handle]) -> tuple[StepReport, Handle]:
        """As with a real trainer, attackers go on meanwhile."""
        done, snapshot = self.trainer.step.options(num_returns=2).remote(*payloads)
        assert self.pool.attend([done], 600.0)
        assert ray.get(done) == len(payloads)
        return StepReport(step, 0.0, 0.0, 0.0, 0.0, {}, ()), snapshot

    def ask_trainer(self, method: str) -> Handle:
        """A snapshot of a megabyte."""
        return ray.put(np.zeros(1 << 20, np.uint8))

    def announce(self, run: str, metrics: Mapping[str, float]) -> None:
        """Nobody watches."""

    def close(self) -> None:
        """Ends all actors."""
        self.pool.close()
        ray.kill(self.trainer)


def report(shard: Shard) -> ShardReport:
    """What an attacker would say."""
    return ShardReport(shard, shard.step, NAP, 0.0, SHARD, 80, 80, SPENT, 0, 0.5, 0.5)


class Cost(NamedTuple):
    """Of a step: seconds, median, and seconds of CPU by who takes them."""

    seconds: float
    cpu: Counter[str]


def used() -> Counter[str]:
    """Seconds of CPU so far."""
    spent: Counter[str] = Counter({"driver": time.process_time()})
    for process in psutil.Process().children(recursive=True):
        name = " ".join(process.cmdline())
        kind = "attackers" if "ray::Sleeper" in name else "trainer" if "ray::Updater" in name else "Ray"
        times = process.cpu_times()
        spent[kind] += times.user + times.system  # type: ignore[assignment]
    return spent


def measure(backend: Asleep, attackers: int, lag: int, steps: int) -> Cost:
    """What a step costs."""
    batch = SHARDS * SHARD * attackers
    loop = started(dataclasses.replace(work_with(lag), batch=batch, shard=SHARD, epochs=10**6), backend)
    times = []
    for step in range(WARM + steps):
        if step == WARM:
            before = used()
        began = time.perf_counter()
        loop.advance()
        loop.step += 1
        times.append(time.perf_counter() - began)
    spent = used() - before
    backend.pool.forget()  # what was handed out ahead
    return Cost(statistics.median(times[WARM:]), Counter({name: total / steps for name, total in spent.items()}))


def at_rest(seconds: float) -> float:
    """Seconds of CPU that attackers take in so many seconds, while they do nothing."""
    before = used()
    time.sleep(3)
    return (used() - before)["attackers"] / 3 * seconds


def costs() -> list[str]:
    """What a snapshot of a size takes to be stored, and a call that reads it to come back; milliseconds, medians."""
    hire: Any = ray.remote(Sleeper)
    actor = hire.options(num_cpus=0.01).remote()
    rows = ["| snapshot | stored | a call that reads it |", "| --- | --- | --- |"]
    for size in (1, 16, 96):
        stored, called = [], []
        for _ in range(15):
            weights = np.zeros(size << 20, np.uint8)
            began = time.perf_counter()
            reference = ray.put(weights)
            stored.append(time.perf_counter() - began)
            began = time.perf_counter()
            ray.get(actor.attack.options(num_returns=2).remote((), reference, 0.0)[0])
            called.append(time.perf_counter() - began)
        rows.append(f"| {size} MiB | {1e3 * statistics.median(stored):.1f} | {1e3 * statistics.median(called):.1f} |")
    ray.kill(actor)
    return rows


def main() -> None:
    """A row a number of attackers and a lag, and a row a size of the model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.control_plane", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--places", type=int, default=1, help="attackers that share a process")
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the actors need no torch
    with tempfile.TemporaryDirectory(prefix="sparring", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        table(chosen.workers, chosen.places, chosen.steps)
        print("\n".join(costs()))
        ray.shutdown()


def table(workers: Sequence[int], places: int, steps: int) -> None:
    """Prints a row a number of attackers and a lag, as they are measured."""
    ideal = NAP * SHARDS
    print(f"load before: {os.getloadavg()}; a step of nothing but sleep takes {ideal} s")
    print("| attackers | lag | seconds a step | added | over linear | CPU: driver | Ray | attackers | at rest |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    first: dict[int, float] = {}
    for attackers in workers:
        backend = Asleep(attackers, places)
        rest = at_rest(ideal)
        for lag in (0, 1):
            seconds, cpu = measure(backend, attackers, lag, steps)
            growth = first.setdefault(lag, seconds) / seconds
            row: list[Any] = [attackers, lag, f"{seconds:.3f}", f"{seconds / ideal - 1:.1%}", f"{growth:.3f}"]
            row += [f"{cpu[name]:.3f}" for name in ("driver", "Ray", "attackers")]
            print("|", " | ".join(str(cell) for cell in [*row, f"{rest:.3f}"]), "|", flush=True)
        print(f"load: {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        backend.close()


if __name__ == "__main__":
    main()
