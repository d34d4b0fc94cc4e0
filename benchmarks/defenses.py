"""Training with every defense in one process, over the passes that it counts itself and nothing else.

The floor of a step are the attacks' forward and backward passes as the step's own figures give them, each over a whole
shard, and the forward and backward pass of the update. What is above it: steps of attacks, judging, loading, losses of
the defense, the update, the loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from algorithms import plugins
from algorithms.defenses import Defense
from algorithms.models.cnn4 import Cnn4
from algorithms.modes import frozen
from algorithms.tensors import Images, Labels
from benchmarks.data import images, mnist
from benchmarks.measuring import CPU, Clock, Row, paired, seconds_of
from benchmarks.training import started, work_with
from orchestrator.backend import Backend, Inline
from orchestrator.catalogue import catalogue
from orchestrator.loop import Loop
from workers import runtime
from workers.cache import open_split
from workers.messages import Work

STEPS = 4


def work_for(defense: Defense) -> Work:
    """Training of a cnn4 on digits."""
    return dataclasses.replace(work_with(0), defense=defense)


def steps(loop: Loop) -> dict[str, float]:
    """Some steps, and the figures of the last."""
    for _ in range(STEPS):
        metrics = loop.advance()
        loop.step += 1
    return metrics


def floor(model: nn.Module, batch: tuple[Images, Labels], passes: tuple[int, int], shard: int) -> None:
    """As many bare passes as some steps take: (forward and backward, forward alone) an example, and the update's."""
    both, forward = passes
    for _ in range(STEPS):
        with frozen(model):
            for x, y in zip(*(part.split(shard) for part in batch), strict=True):
                for _ in range(both):
                    given = x.clone().requires_grad_()
                    torch.autograd.grad(functional.cross_entropy(model(given), y), given)
                with torch.inference_mode():
                    for _ in range(forward):
                        model(x)
        loss = functional.cross_entropy(model(batch[0]), batch[1])
        torch.autograd.grad(loss, list(model.parameters()))


def over_passes(what: str, work: Work, backend: Backend, time: Callable[[Loop], float], clock: Clock) -> Row:
    """Steps of a training against the passes that the last of them has counted, on one core.

    `time` makes STEPS and says how many seconds they took.
    """
    loop = started(work, backend)
    metrics = steps(loop)
    backwards, forwards = (metrics.get(f"cost/{kind}_per_example", 0.0) for kind in ("backwards", "forwards"))
    both, alone = round(backwards), max(0, round(forwards) - round(backwards))
    split = open_split(work.dataset, "train")
    model = runtime.arranged(work.model.build(split.shape, len(split.classes)))
    batch = torch.rand(work.batch, *split.shape), torch.randint(0, len(split.classes), (work.batch,))
    bare = partial(seconds_of, partial(floor, model, batch, (both, alone), work.shard), clock)
    row = paired((f"training with {what}", "its passes alone"), partial(time, loop), bare, 3)
    return dataclasses.replace(row, note=f"{both} + {alone} passes an example")


def in_process(loop: Loop) -> float:
    """CPU seconds of some steps."""
    return seconds_of(partial(steps, loop), CPU)


def works() -> dict[str, Work]:
    """Every defense, with its defaults, on digits; and PGD-10 on MNIST, where it is."""
    interface: Any = Defense  # an abstract one
    larger = dataclasses.replace(work_with(0), dataset=images(), model=Cnn4())
    found = {"adversarial, MNIST": larger} if mnist() else {}
    return found | {name: work_for(plugins.find(interface, name)()) for name in catalogue("defenses")}


def run() -> list[Row]:
    """A row a defense."""
    return [over_passes(name, work, Inline(work), in_process, CPU) for name, work in works().items()]
