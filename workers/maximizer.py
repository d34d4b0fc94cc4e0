"""The layers of a step as Ray tasks, all at once: what a trainer on a cluster is given to maximise Hamiltonians with.

A task is a pure function of its problem, in as many threads as the trainer has, so it gives the trainer's own bits. One
that is lost with its node or does not come back in time is done by the trainer instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from algorithms.control.decoupling import Problem
from algorithms.control.maximisation import Maximised, maximise
from workers import runtime
from workers.descent import array, tensor

HOST = torch.device("cpu")


@final
@dataclass(frozen=True)
class LayerTasks:
    """Solves problems as tasks of a CPU each."""

    threads: int  # of torch, in each task
    deadline: float  # seconds that are waited for a task

    def __call__(self, problems: Sequence[Problem]) -> list[Maximised]:
        """The solutions, in the problems' order. Raises what the maximisation of a layer raises."""
        tasks = [_task.remote(_packed(problem), self.threads) for problem in problems]
        return [self._solution(task, problem) for task, problem in zip(tasks, problems, strict=True)]

    def _solution(self, task: Any, problem: Problem) -> Maximised:
        try:
            theta, memory, note = ray.get(task, timeout=self.deadline)
        except RayTaskError as error:
            raise (getattr(error, "cause", None) or error) from error
        except RayError:  # lost, or late: the trainer gets the same bits
            ray.cancel(task, force=True)
            return maximise(*problem)
        return Maximised(tensor(theta, HOST), {key: tensor(value, HOST) for key, value in memory.items()}, note)


def _packed(problem: Problem) -> tuple[Any, ...]:
    """The problem with arrays for tensors, which Ray moves without copying."""
    memory = {key: array(value) for key, value in problem.memory.items()}
    return problem.terms, array(problem.theta), array(problem.product), memory


@ray.remote(num_cpus=1)
def _task(packed: tuple[Any, ...], threads: int) -> tuple[Any, ...]:
    """The solution of a packed problem, packed."""
    runtime.prepare("cpu", threads)
    terms, theta, product, memory = packed
    known = {key: tensor(value, HOST) for key, value in memory.items()}
    found = maximise(terms, tensor(theta, HOST), tensor(product, HOST), known)
    return array(found.theta), {key: array(value) for key, value in found.memory.items()}, found.note
