"""Where the work is done. The loop knows these few calls and nothing of Ray; `inline` runs them in this process."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from orchestrator.listener import Listener
from orchestrator.recipe import Workers
from workers.attacker import Attacker
from workers.messages import StepReport, Work
from workers.trainer import Trainer

Handle = Any  # of a value that stays where it is; for the inline backend the value itself


class Result(NamedTuple):
    """What a finished call left: a small report for the driver, and a handle of the rest."""

    report: Any
    payload: Handle


class TrainerLost(Exception):  # noqa: N818 - a thing that happens, and is mended
    """The trainer's process or node is gone, or parameters that were handed out are; go back to a checkpoint."""


class ExamplesLost(Exception):  # noqa: N818
    """Finished shards went with the node that held them; compute them again."""


class Backend(ABC):
    """Attackers and a trainer, wherever they run."""

    @abstractmethod
    def share(self, value: Any) -> Handle:
        """Puts a value where every worker can read it."""

    @abstractmethod
    def fetch(self, handle: Handle) -> Any:
        """The value behind a handle. Raises TrainerLost if it is gone."""

    @abstractmethod
    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """Queues `attacker.<method>(*arguments)` under `key`. Handles among the arguments are resolved on the way."""

    @abstractmethod
    def collect(self, keys: Sequence[Hashable]) -> list[Result]:
        """The results of these calls, in the order of the keys; afterwards they are forgotten.

        Raises TrainerLost if a snapshot among a call's arguments is gone, and whatever a call raised three times.
        """

    @abstractmethod
    def start_trainer(self, state: NDArray[np.uint8] | None) -> None:
        """A fresh trainer, from `Trainer.state` if it is given; the one before it is given up."""

    @abstractmethod
    def step(self, step: int, payloads: Sequence[Handle]) -> tuple[StepReport, Handle]:
        """One update: its report, and the snapshot after it. Raises TrainerLost or ExamplesLost."""

    @abstractmethod
    def ask_trainer(self, method: str) -> Handle:
        """The payload of `trainer.<method>()`, a handle. Raises TrainerLost."""

    def behind(self) -> str:
        """Which worker holds up the others, in a few words; empty if none does."""
        return ""

    def trouble(self) -> str:
        """Why work cannot go on for long, in words; empty where it can."""
        return ""

    def figures(self) -> dict[str, float]:
        """How the workers are doing, since the last time that this was asked; nothing where there are none."""
        return {}

    @abstractmethod
    def announce(self, run: str, metrics: Mapping[str, float]) -> None:
        """Tells a step's metrics to whoever watches the cluster."""

    def events(self) -> dict[str, int]:
        """How often what has happened so far: requeues, restarts, replacements."""
        return {}


@final
class Inline(Backend):
    """One attacker and the trainer in this process, one call after the other: a breakpoint works."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.attacker = Attacker(work)
        self.calls: dict[Hashable, tuple[str, tuple[Any, ...]]] = {}

    def share(self, value: Any) -> Handle:
        """The value itself."""
        return value

    def fetch(self, handle: Handle) -> Any:
        """The value itself."""
        return handle

    def submit(self, key: Hashable, method: str, *arguments: Any) -> None:
        """Remembers the call; `collect` makes it."""
        self.calls[key] = method, arguments

    def collect(self, keys: Sequence[Hashable]) -> list[Result]:
        """Makes the calls, one after the other."""
        return [self._call(key) for key in keys]

    def start_trainer(self, state: NDArray[np.uint8] | None) -> None:
        """Builds the trainer here."""
        self.trainer = Trainer(self.work, state)

    def step(self, step: int, payloads: Sequence[Handle]) -> tuple[StepReport, Handle]:
        """Makes the update here."""
        return self.trainer.step(step, *payloads)

    def ask_trainer(self, method: str) -> Handle:
        """Asks the trainer here."""
        return getattr(self.trainer, method)()[1]

    def announce(self, run: str, metrics: Mapping[str, float]) -> None:
        """Nobody watches this process."""

    def _call(self, key: Hashable) -> Result:
        method, arguments = self.calls.pop(key)
        return Result(*getattr(self.attacker, method)(*arguments))


@contextmanager
def open_cluster(workers: Workers, listener: Listener) -> Iterator[None]:
    """The recipe's Ray cluster, or a local one that ends with the block; nothing for the inline backend."""
    if workers.backend == "inline":
        yield
        return
    from orchestrator import cluster  # noqa: PLC0415 - Ray is imported only where it is used

    with cluster.connected(workers, listener):
        yield


@contextmanager
def shared_cluster() -> Iterator[None]:
    """Within the block, processes that this one starts join its Ray cluster, if it is at one."""
    if "ray" not in sys.modules:
        yield
        return
    from orchestrator import cluster  # noqa: PLC0415 - Ray is imported only where it is used

    with cluster.shared():
        yield


@contextmanager
def open_backend(workers: Workers, work: Work, listener: Listener, *, training: bool = True) -> Iterator[Backend]:
    """The backend that the recipe names, with everything that it started stopped at the end.

    Where there is no `training`, no room is kept for a trainer.
    """
    if workers.backend == "inline":
        yield Inline(work)
        return
    from orchestrator import cluster  # noqa: PLC0415

    with cluster.connected(workers, listener), cluster.remote_backend(workers, work, listener, training) as backend:
        yield backend
