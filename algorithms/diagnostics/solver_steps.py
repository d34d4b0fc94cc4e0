"""Which steps adaptive solvers take on clean and on attacked images (Huang et al. 2021, Table 4).

https://proceedings.mlr.press/v145/huang22a.html. The paper reads off it that an attack moves the steps, "thus
confounding the gradients", and that they become smaller with the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import nn

from algorithms import checks
from algorithms.attacks.pgd import PGD
from algorithms.diagnostics.signs import Scene
from algorithms.gradients import predict
from algorithms.ode.views import recorded
from algorithms.ode.watch import Trace
from algorithms.search import search
from algorithms.tensors import Images


class Grid(NamedTuple):
    """The steps of one block, for a whole batch: an adaptive solver takes one sequence of them."""

    block: str
    iterations: int  # of PGD before the pass that was recorded
    times: tuple[float, ...]  # from 0 to the end, 1 in place of what lies beyond
    rejected: int  # steps that were tried in vain
    evaluations: int  # of the field


@final
@dataclass(frozen=True, kw_only=True)
class SolverSteps:
    """Records each block's steps after so many iterations of PGD by a tenth of the radius, as in the paper."""

    iterations: tuple[int, ...] = (0, 1, 20, 100)

    def __post_init__(self) -> None:
        """Raises ValueError for negative numbers."""
        for count in self.iterations:
            checks.at_least("iterations", count, 0, "numbers of iterations")

    def grids(self, scene: Scene) -> list[Grid]:
        """Block by block and iteration by iteration; the batch is the scene's."""
        return [
            Grid(trace.block, count, trace.clipped, trace.rejected, trace.evaluations)
            for count in self.iterations
            for trace in traces(scene.model, attacked(scene, count))
        ]


def attacked(scene: Scene, iterations: int) -> Images:
    """The last iterate of PGD."""
    if not iterations or scene.norm == "l0":
        return scene.x
    attack = PGD(norm=scene.norm, eps=scene.eps, step_size=scene.eps / 10, steps=iterations)
    return search(attack, scene.model, scene.x, scene.y, rng=scene.streams, policy="last").x_adv


def traces(model: nn.Module, x: Images) -> list[Trace]:
    """What the solvers of a network do for one batch."""
    with recorded(model) as seen, torch.no_grad():
        predict(model, x)
    return list(seen)
