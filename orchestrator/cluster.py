"""The run on a Ray cluster: joining or starting one, and the backend whose attackers and trainer are actors."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from orchestrator import joining
from orchestrator.backend import Backend, ExamplesLost, Handle, Result, TrainerLost
from orchestrator.gauges import Gauges
from orchestrator.listener import Listener
from orchestrator.pulse import Pulse
from orchestrator.recipe import Workers
from orchestrator.trainers import Trainers
from workers.attacker import Attacker
from workers.messages import StepReport, Work
from workers.pool import ArgumentLost, Pool
from workers.seats import Limits, Watch

FOLDERS = Path("/tmp")  # noqa: S108 - of local clusters; whatever TMPDIR says, since Ray's sockets need short names
STORE_BYTES = 512 << 20  # of a local cluster's object store: a few snapshots and a window of shards


@contextmanager
def connected(workers: Workers, listener: Listener) -> Iterator[None]:
    """A connection to the recipe's cluster, or to a local one that ends with the run."""
    if ray.is_initialized():
        yield
        return
    cluster = joining.wanted(workers)
    joining.check(cluster)
    listener.say(f"joining the Ray cluster at {cluster.address}" if cluster.address else "starting a local Ray cluster")
    with contextlib.nullcontext() if cluster.address else own_folder(FOLDERS) as folder:
        try:
            with _quiet_environment(joined=bool(cluster.address)):
                _init(cluster, folder, workers)
            yield
        finally:
            ray.shutdown()


@contextmanager
def own_folder(parent: Path) -> Iterator[str]:
    """A folder with a short name, as Ray's sockets need it. Those that killed runs have left behind go first.

    A run holds a lock in its folder, which goes with its process; the folder gets its name when the lock is held.
    """
    for left in parent.glob("sparring-*"):
        with contextlib.suppress(OSError), (left / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
    folder = parent / made.name.replace("new-", "sparring-")
    with (made / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        try:
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def shared() -> Iterator[None]:
    """Tells processes that are started within the block where the cluster is, if this process is at one."""
    before = os.environ.get(joining.VARIABLE)
    if ray.is_initialized():
        os.environ[joining.VARIABLE] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        os.environ.pop(joining.VARIABLE, None)
        if before is not None:
            os.environ[joining.VARIABLE] = before


@contextmanager
def _quiet_environment(*, joined: bool) -> Iterator[None]:
    """Ray reads these while it starts or joins: no usage reports to other hosts, no niceness, one attempt at a head."""
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if joined:
        wanted["RAY_gcs_server_port_wait_time_s"] = "1"  # of half a minute and more; Ray's own 20 take ten minutes
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _init(cluster: joining.Wanted, folder: str | None, workers: Workers) -> None:
    if cluster.address:
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, namespace="sparring")
        except ConnectionError:
            raise ValueError(f"{cluster.source}: no Ray cluster answers at {cluster.address}") from None
        return
    trainers = workers.trainers * workers.trainer_cpus + workers.maximizers
    cpus = workers.attackers * workers.attacker_cpus + trainers
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


@contextmanager
def remote_backend(workers: Workers, work: Work, listener: Listener, training: bool) -> Iterator[Backend]:
    """Attackers and, for a training, a trainer as Ray actors, ended at the end."""
    check_feasible(workers)
    backend = Remote(workers, work, listener, training=training)
    try:
        yield backend
    finally:
        backend.close()


@final
class Remote(Backend):
    """The backend on Ray. Values travel through its object store; the driver holds references to them."""

    def __init__(self, workers: Workers, work: Work, listener: Listener, *, training: bool = True) -> None:
        self.workers, self.listener = workers, listener
        self.trainers = Trainers(workers, work, listener)
        if training:
            self.trainers.reserve()
        hire = ray.remote(Attacker).options(
            num_cpus=workers.attacker_cpus,
            num_gpus=workers.attacker_gpus,
            max_restarts=-1,
            max_task_retries=0,
            enable_task_events=False,  # Ray's control process would keep a record of each shard
        )
        limits = Limits(
            call=workers.deadline,
            start=workers.start_deadline,
            start_failures=workers.start_failures,
            least=workers.least_attackers,
            asks=f"{workers.attacker_cpus:g} CPU and {workers.attacker_gpus:g} GPU",
        )
        self.pool = Pool(lambda: hire.remote(work), workers.attackers, limits, listener.say)
        self.watch, self.gauges = Watch(), Gauges()
        self.counts = Counter({"trainer_starts": 0, "shards_lost": 0})
        self.pulse = Pulse(ray.get_runtime_context().gcs_address, listener)

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
        """New actors; what the pool still has to do for those before them is dropped."""
        if self.counts["trainer_starts"]:
            self.pool.forget()
        self.counts["trainer_starts"] += 1
        self.trainers.start(state, self.pool.dismiss)
        self.pool.refill()

    def step(self, step: int, payloads: Sequence[Handle]) -> tuple[StepReport, Handle]:
        """Waits for the update, so that it is confirmed before the next is submitted. Attackers work meanwhile."""
        try:
            return self.trainers.step(step, payloads, self.pool.attend)
        except ArgumentLost as error:
            raise TrainerLost(str(error)) from error
        except ExamplesLost:
            self.counts["shards_lost"] += 1
            self.listener.say("finished shards went with the node that held them; they are computed again")
            raise

    def ask_trainer(self, method: str) -> Handle:
        """Waits for the answer's report; the payload stays in the object store."""
        return self.trainers.ask(method)

    def behind(self) -> str:
        """The slowest attacker, where it is much slower."""
        return self.pool.behind()

    def trouble(self) -> str:
        """The end of Ray's control process, which is soon that of all others."""
        return self.pulse.trouble()

    def figures(self) -> dict[str, float]:
        """Of the pool, and all that has happened so far."""
        return self.watch.look(self.pool.seats) | {name: float(count) for name, count in self.events().items()}

    def announce(self, run: str, metrics: Mapping[str, float]) -> None:
        """To Prometheus, through Ray."""
        self.gauges.show(run, metrics)

    def events(self) -> dict[str, int]:
        """What the pool has seen."""
        return dict(self.pool.events) | dict(self.counts)

    def close(self) -> None:
        """Ends all actors; where the control process is gone, nobody would hear of it, and they end by themselves."""
        self.pulse.stop()
        if self.pulse.trouble():
            return
        self.pool.close()
        self.trainers.close()
