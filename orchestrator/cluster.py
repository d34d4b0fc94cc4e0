"""The run on a Ray cluster: joining or starting one, and the backend whose attackers and trainer are actors."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError, RayTaskError

from algorithms.control.decoupling import here
from orchestrator.backend import Backend, ExamplesLost, Handle, Result, TrainerLost
from orchestrator.listener import Listener
from orchestrator.recipe import Workers
from workers.attacker import Attacker
from workers.maximizer import LayerTasks
from workers.messages import StepReport, Work
from workers.pool import ArgumentLost, Limits, Pool
from workers.trainer import Trainer

STORE_BYTES = 512 << 20  # of a local cluster's object store: a few snapshots and a window of shards


@contextmanager
def connected(workers: Workers, listener: Listener) -> Iterator[None]:
    """A connection to the recipe's cluster, or to a local one that ends with the run."""
    if ray.is_initialized():
        yield
        return
    address = workers.address or os.environ.get("RAY_ADDRESS", "")
    folder = None if address else tempfile.mkdtemp(prefix="sparring", dir="/tmp")
    listener.say(f"joining the Ray cluster at {address}" if address else "starting a local Ray cluster")
    try:
        with _quiet_environment():
            _init(address, folder, workers)
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet_environment() -> Iterator[None]:
    """Ray reads these while it starts: no usage reports to other hosts, no niceness."""
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _init(address: str, folder: str | None, workers: Workers) -> None:
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="sparring")
        return
    cpus = workers.attackers * workers.attacker_cpus + workers.trainer_cpus + workers.maximizers
    ray.init(
        address="local",
        num_cpus=max(1, int(np.ceil(cpus))),  # what was asked for, whatever the machine has
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="sparring",
        _temp_dir=folder,
    )


def check_feasible(workers: Workers) -> None:
    """Raises ValueError if no node of the cluster could ever hold one worker, and nothing will add such a node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if ray.cluster_resources().get("autoscaler") or os.environ.get("RAY_AUTOSCALING"):
        return
    for who, cpus, gpus in (
        ("attacker", workers.attacker_cpus, workers.attacker_gpus),
        ("trainer", workers.trainer_cpus, workers.trainer_gpus),
    ):
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            there = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise ValueError(
                f"workers.{who}_cpus = {cpus:g}, workers.{who}_gpus = {gpus:g}: no node has so much; there are: {there}"
            )


def trainers_node() -> dict[str, float]:
    """A little of the resource `trainer` where a cluster has it: its file gives it to nodes that are not taken away."""
    return {"trainer": 0.001} if "trainer" in ray.cluster_resources() else {}


@contextmanager
def remote_backend(workers: Workers, work: Work, listener: Listener) -> Iterator[Backend]:
    """Attackers and a trainer as Ray actors, ended at the end."""
    check_feasible(workers)
    backend = Remote(workers, work, listener)
    try:
        yield backend
    finally:
        backend.close()


@final
class Remote(Backend):
    """The backend on Ray. Values travel through its object store; the driver holds references to them."""

    def __init__(self, workers: Workers, work: Work, listener: Listener) -> None:
        self.workers, self.work, self.listener = workers, work, listener
        hire = ray.remote(Attacker).options(
            num_cpus=workers.attacker_cpus, num_gpus=workers.attacker_gpus, max_restarts=-1, max_task_retries=0
        )
        limits = Limits(workers.deadline, workers.start_deadline, workers.start_failures)
        self.pool = Pool(lambda: hire.remote(work), workers.attackers, limits, listener.say)
        self.trainer: Any = None
        self.trainer_starts = 0

    def share(self, value: Any) -> Handle:
        """Into the object store."""
        return ray.put(value)

    def fetch(self, handle: Handle) -> Any:
        """Out of the object store."""
        try:
            return ray.get(handle, timeout=self.workers.deadline)
        except (ObjectLostError, RayActorError, GetTimeoutError) as error:
            raise TrainerLost(str(error)) from error

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """To the pool."""
        self.pool.submit(key, method, *arguments)

    def collect(self, keys: Sequence[Hashable]) -> list[Result]:
        """From the pool."""
        try:
            return [Result(*answer) for answer in self.pool.collect(keys)]
        except ArgumentLost as error:
            raise TrainerLost(str(error)) from error

    def start_trainer(self, state: NDArray[np.uint8] | None) -> None:
        """A new actor; what the pool still has to do for the one before is dropped."""
        if self.trainer is not None:
            ray.kill(self.trainer)
            self.pool.forget()
        self.trainer_starts += 1
        hire = ray.remote(Trainer).options(
            num_cpus=self.workers.trainer_cpus,
            num_gpus=self.workers.trainer_gpus,
            resources=trainers_node(),
            max_restarts=0,
            max_task_retries=0,
        )
        tasks = LayerTasks(self.work.threads, self.workers.deadline / 2) if self.workers.maximizers else here
        self.trainer = hire.remote(self.work, state, tasks)

    def step(self, step: int, payloads: Sequence[Handle]) -> tuple[StepReport, Handle]:
        """Waits for the update, so that it is confirmed before the next is submitted."""
        report, snapshot = self.trainer.step.options(num_returns=2).remote(step, *payloads)
        return self._trainer_answer(report), snapshot

    def ask_trainer(self, method: str) -> Handle:
        """Waits for the answer's report; the payload stays in the object store."""
        report, payload = getattr(self.trainer, method).options(num_returns=2).remote()
        self._trainer_answer(report)
        return payload

    def behind(self) -> str:
        """The slowest attacker, where it is much slower."""
        return self.pool.behind()

    def events(self) -> dict[str, int]:
        """What the pool has seen."""
        return dict(self.pool.events) | {"trainer_starts": self.trainer_starts}

    def close(self) -> None:
        """Ends all actors."""
        self.pool.close()
        if self.trainer is not None:
            ray.kill(self.trainer)

    def _trainer_answer(self, report: Any) -> Any:
        try:
            return ray.get(report, timeout=self.workers.deadline)
        except ObjectLostError as error:
            raise ExamplesLost(str(error)) from error
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, ObjectLostError):
                raise ExamplesLost(str(error)) from error
            raise (cause or error) from error
        except (RayError, GetTimeoutError) as error:
            if "creation task" in str(error):  # its constructor raised: it would again
                raise RuntimeError(f"the trainer could not start: {last_line(error)}") from error
            raise TrainerLost("the trainer was lost") from error


def last_line(error: Exception) -> str:
    """What an error of Ray's says last: the cause, below the traceback of the other process."""
    return str(error).strip().splitlines()[-1].strip()
