"""What `torch.compile` would make of an attack's step on a CPU: forward and backward to the images, weights frozen.

One batch size and one precision at a time, which flatters it: where examples leave the batch, each new size is compiled
again. The note has what the compiling took.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.models.madry_cnn import MadryCnn
from algorithms.modes import frozen
from benchmarks.measuring import CPU, Row, compare
from workers import runtime
from workers.messages import Precision

BATCH, STEPS = 64, 10
MODELS: dict[str, Model] = {"cnn4": Cnn4(), "madry_cnn": MadryCnn()}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def climb(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """So many gradients."""
    for _ in range(STEPS):
        given = x.clone().requires_grad_()
        torch.autograd.grad(functional.cross_entropy(model(given).float(), y), given)


def run() -> list[Row]:
    """A row a network and a precision."""
    rows = []
    for name, kind in MODELS.items():
        for precision in PRECISIONS:
            eager = runtime.lowered(runtime.arranged(kind.build((1, 28, 28), 10)), precision).eval()
            dtype = next(eager.parameters()).dtype
            x, y = torch.rand(BATCH, 1, 28, 28).to(dtype), torch.randint(0, 10, (BATCH,))
            with frozen(eager):
                compiled: Any = torch.compile(eager, dynamic=False)
                began = time.perf_counter()
                climb(compiled, x, y)
                note = f"compiled in {time.perf_counter() - began:.0f} s"
                work = partial(climb, compiled, x, y), partial(climb, eager, x, y)
                row = compare((f"{name}, {precision}, compiled", "eager"), *work, CPU)
            rows.append(replace(row, note=note))
    return rows
