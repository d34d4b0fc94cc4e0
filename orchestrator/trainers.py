"""The trainer on a Ray cluster: one actor, or a group of them that act as one.

Room for them is set aside before the attackers take the rest, and stays theirs while they are started again. A group
that has lost a member is started afresh as a whole, from the newest checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from algorithms.control.decoupling import here
from orchestrator.backend import ExamplesLost, Handle, TrainerLost
from orchestrator.listener import Listener
from orchestrator.recipe import Workers
from workers.maximizer import LayerTasks
from workers.messages import StepReport, Work
from workers.ranks import RankLost
from workers.trainer import Trainer

SOON = 5.0  # seconds without a place, after which attackers make room, or after which it is said that there is none
Call = tuple[Any, Any]  # references of a report and of a payload
Wait = Callable[[Sequence[Any], float], list[Any]]  # for references, so many seconds: those that are there, if any


@final
class Trainers:
    """What the driver knows of the trainer; the calls are those of a single one."""

    def __init__(self, workers: Workers, work: Work, listener: Listener) -> None:
        self.workers, self.work, self.listener = workers, work, listener
        self.actors: list[Any] = []
        self.steps: dict[int, Call] = {}  # by rank: calls of a step that ranks wait in for one whose shards were lost
        self.place: PlacementGroup | None = None
        self.asked: dict[str, float] = {}  # for each trainer in that place

    def reserve(self) -> None:
        """Asks for room, and waits a moment for it; attackers that ask later do not get it first."""
        if self.place is None or placement_group_table(self.place)["state"] in ("REMOVED", "RESCHEDULING"):
            self._leave()
            self.asked = self._needs()
            self.place = placement_group([self.asked] * self.workers.trainers, strategy="PACK")
        self.place.wait(timeout_seconds=SOON)

    def start(self, state: NDArray[np.uint8] | None, make_room: Callable[[], bool]) -> None:
        """Fresh actors, from `Trainer.state` if it is given; those before them are ended.

        `make_room` ends an attacker, if it can. Raises TimeoutError if there is no room, RuntimeError if a trainer
        cannot start, and TrainerLost if one is lost.
        """
        self._kill()
        self._wait_for_room(make_room)
        size, hire = self.workers.trainers, ray.remote(Trainer).options
        tasks = LayerTasks(self.work.threads, self.workers.deadline / 2) if self.workers.maximizers else here
        about = [(self.work, state, tasks, rank, size) for rank in range(size)]
        self.actors = [hire(**self._options(rank)).remote(*about[rank]) for rank in range(size)]
        seconds = self.workers.start_deadline
        found = self._all([actor.fingerprint.options(num_returns=2).remote()[0] for actor in self.actors], seconds)
        if len(set(found)) > 1:
            raise RuntimeError(f"the trainers compute differently: {set(found)}; use machines of one kind")
        if size > 1:
            self._introduce()

    def step(self, step: int, payloads: Sequence[Handle], wait: Wait) -> tuple[StepReport, Handle]:
        """One update. Where a rank's shards were lost, the others wait for it: it alone is called again."""
        for rank, actor in enumerate(self.actors):
            if rank not in self.steps:
                mine = payloads[rank :: len(self.actors)]
                self.steps[rank] = actor.step.options(num_returns=2).remote(step, *mine)
        ranks = {report: rank for rank, (report, _) in self.steps.items()}
        waiting, deadline = list(ranks), time.monotonic() + self.workers.deadline
        while waiting:
            done = wait(waiting, max(0.0, deadline - time.monotonic()))
            try:
                for report in done or waiting[:1]:
                    self._answer(report, 0.0 if not done else self.workers.deadline)
            except ExamplesLost:
                del self.steps[ranks[report]]
                raise
            waiting = [report for report in waiting if report not in done]
        (first, snapshot), self.steps = self.steps[0], {}
        return self._answer(first, self.workers.deadline), snapshot

    def ask(self, method: str) -> Handle:
        """The payload of the first rank's `method`; the others hold the same."""
        report, payload = getattr(self.actors[0], method).options(num_returns=2).remote()
        self._answer(report, self.workers.deadline)
        return payload

    def close(self) -> None:
        """Ends all, and gives the room back."""
        self._kill()
        self._leave()

    def _needs(self) -> dict[str, float]:
        """What one trainer needs, in the cluster as it is now."""
        asked = {"CPU": self.workers.trainer_cpus, "GPU": self.workers.trainer_gpus, **trainers_node()}
        return {name: amount for name, amount in asked.items() if amount} or {"CPU": 0.001}

    def _options(self, rank: int) -> dict[str, Any]:
        assert self.place is not None
        where = PlacementGroupSchedulingStrategy(self.place, placement_group_bundle_index=rank)
        asked = {"num_cpus": self.workers.trainer_cpus, "num_gpus": self.workers.trainer_gpus}
        never = {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}  # it would have forgotten all
        marks = {name: amount for name, amount in self.asked.items() if name not in ("CPU", "GPU")}
        return {**asked, **never, "resources": marks, "scheduling_strategy": where}

    def _wait_for_room(self, make_room: Callable[[], bool]) -> None:
        """Waits until the cluster has set the room aside; says soon what is missing, and gives up after a while."""
        began, said = time.monotonic(), False
        while True:
            self.reserve()
            if self.place is not None and placement_group_table(self.place)["state"] == "CREATED":
                return
            if fits(self.asked) and make_room():
                continue
            wish = f"room for {self.workers.trainers} trainer with {in_words(self.asked)} each"
            there = (
                f"the cluster has {in_words(ray.cluster_resources())}, and free {in_words(ray.available_resources())}"
            )
            if time.monotonic() - began > self.workers.start_deadline:
                limit = f"{self.workers.start_deadline:.0f} s (workers.start_deadline)"
                raise TimeoutError(f"no {wish} within {limit}; {there}")
            if not said:
                self.listener.say(f"waiting for {wish}; {there}")
            said = True

    def _introduce(self) -> None:
        """Makes a torch.distributed group of the actors, at an address of the first one's."""
        seconds = self.workers.deadline
        port = ray.get(self.actors[0].listen.remote(), timeout=seconds)
        host = ray.get(self.actors[0].__ray_call__.remote(lambda _: ray.util.get_node_ip_address()), timeout=seconds)
        self._all([actor.join.remote(host, port, seconds) for actor in self.actors], seconds)

    def _all(self, references: Sequence[Any], seconds: float) -> list[Any]:
        return [self._answer(reference, seconds) for reference in references]

    def _answer(self, report: Any, seconds: float) -> Any:
        """What a trainer answers, with Ray's errors as this project's."""
        try:
            return ray.get(report, timeout=seconds)
        except ObjectLostError as error:
            raise ExamplesLost(str(error)) from error
        except RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, ObjectLostError):
                raise ExamplesLost(str(error)) from error
            if isinstance(cause, RankLost):
                raise TrainerLost("a trainer of the group was lost") from error
            raise (cause or error) from error
        except GetTimeoutError as error:
            raise TrainerLost(f"the trainer gave no answer for {self.workers.deadline:.0f} s") from error
        except RayError as error:
            if isinstance(error, RayActorError) and "creation task" in str(
                error
            ):  # its constructor raised: it would again
                raise RuntimeError(f"the trainer could not start: {last_line(error)}") from error
            raise TrainerLost("the trainer was lost") from error

    def _kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        self.actors, self.steps = [], {}

    def _leave(self) -> None:
        if self.place is not None:
            remove_placement_group(self.place)
            self.place = None


def trainers_node() -> dict[str, float]:
    """A little of the resource `trainer` where a cluster has it: its file gives it to nodes that are not taken away."""
    return {"trainer": 0.001} if "trainer" in ray.cluster_resources() else {}


def fits(asked: dict[str, float]) -> bool:
    """Whether a node could hold it, if nothing else were on it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes)


def in_words(resources: dict[str, float]) -> str:
    """Processors and what else a cluster's file names, without memory and Ray's own marks."""
    known = {name: amount for name, amount in sorted(resources.items()) if name in ("CPU", "GPU", "trainer")}
    return ", ".join(f"{amount:g} {name}" for name, amount in known.items()) or "nothing"


def last_line(error: Exception) -> str:
    """What an error of Ray's says last: the cause, below the traceback of the other process."""
    return str(error).strip().splitlines()[-1].strip()
