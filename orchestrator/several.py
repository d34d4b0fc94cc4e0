"""One job for several models: one after the other in this process, or several at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, final

from orchestrator.backend import shared_cluster
from orchestrator.listener import Listener, Silent

Job = Callable[[Any, Listener], Any]


def each(stage: str, job: Job, items: list[Any], parallel: int, listener: Listener) -> list[Any]:
    """`job` of each item, in their order; `parallel` of them at a time. The listener is told how many are done."""
    listener.begin(stage, len(items), "models")
    try:
        made = _here(stage, job, items, listener) if parallel == 1 else _there(stage, job, items, (parallel, listener))
        return list(made)
    finally:
        listener.end(stage)


def _here(stage: str, job: Job, items: list[Any], listener: Listener) -> Iterator[Any]:
    for done, item in enumerate(items):
        yield job(item, Inner(listener, stage, done))
        listener.advance(stage, done + 1)


def _there(stage: str, job: Job, items: list[Any], how: tuple[int, Listener]) -> list[Any]:
    """In processes of their own, which share a cluster. Ctrl-C reaches all of them; each stops at a checkpoint."""
    parallel, listener = how
    context = multiprocessing.get_context("spawn")
    with shared_cluster(), ProcessPoolExecutor(parallel, mp_context=context) as pool:
        futures = [pool.submit(job, item, Silent()) for item in items]
        for done, future in enumerate(as_completed(futures)):
            future.result()
            listener.advance(stage, done + 1)
        return [future.result() for future in futures]


@final
class Inner:
    """Told how one model goes, it tells how the whole goes."""

    def __init__(self, outer: Listener, stage: str, done: int) -> None:
        self.outer, self.stage, self.done = outer, stage, done
        self.totals: dict[str, str] = {}

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Notes what is under way."""
        self.totals[stage] = f"{total} {unit}"

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """A note at the outer stage."""
        self.outer.advance(self.stage, self.done, f"{stage} {done} of {self.totals[stage]}, {note}".rstrip(", "))

    def end(self, stage: str) -> None:
        """Nothing: the outer stage goes on."""

    def say(self, message: str) -> None:
        """Passed on."""
        self.outer.say(message)
