"""Training with every defense in one process, over the passes that it counts itself and nothing else.

The floor of a step are the attacks' forward and backward passes as the step's own figures give them, each over a whole
shard, and the forward and backward pass of the update. What is above it: steps of attacks, judging, loading, losses of
the defense, the update, the loop.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from algorithms import plugins
from algorithms.defenses import Defense
from algorithms.modes import frozen
from algorithms.tensors import Images, Labels
from benchmarks.measuring import CPU, Row, compare
from benchmarks.training import started, work_with
from orchestrator.backend import Inline
from orchestrator.catalogue import catalogue
from orchestrator.loop import Loop
from workers import runtime
from workers.messages import Work

STEPS = 2


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


def run() -> list[Row]:
    """A row a defense, with its defaults."""
    rows = []
    interface: Any = Defense  # an abstract one
    for name in catalogue("defenses"):
        work = work_for(plugins.find(interface, name)())
        loop = started(work, Inline(work))
        metrics = steps(loop)
        backwards, forwards = (metrics.get(f"cost/{kind}_per_example", 0.0) for kind in ("backwards", "forwards"))
        both, alone = round(backwards), max(0, round(forwards) - round(backwards))
        model = runtime.arranged(work.model.build((1, 8, 8), 10))
        batch = torch.rand(work.batch, 1, 8, 8), torch.randint(0, 10, (work.batch,))
        bare = partial(floor, model, batch, (both, alone), work.shard)
        row = compare((f"training with {name}", "its passes alone"), partial(steps, loop), bare, CPU, 3)
        rows.append(dataclasses.replace(row, note=f"{both} + {alone} passes an example"))
    return rows
