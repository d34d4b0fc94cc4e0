"""One shard of a diagnosis: an attack, or a sign of masked gradients, on given examples."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.companions import WithSurrogate
from algorithms.diagnostics.graded import Graded
from algorithms.diagnostics.signs import Scene, Sign
from algorithms.diagnostics.solver_steps import SolverSteps
from algorithms.diagnostics.substitute import distil
from algorithms.models import Model
from algorithms.modes import frozen
from algorithms.streams import Streams
from workers.cache import Split
from workers.judge import JudgeTask, Source, judge, look
from workers.runtime import rng_of, seed_of

Columns = dict[str, NDArray[Any]]  # a number or a flag an example
KEPT = ("index", "label", "predicted", "predicted_adv", "success", "linf", "l2", "l1", "forwards", "backwards")


Probe = Attack | Sign | SolverSteps


class ProbeTask(NamedTuple):
    """What to look at, by name."""

    indices: NDArray[np.int64]  # of the examples within the test part
    label: str  # random numbers depend on it, the seed and an example's index
    seed: int
    probe: Probe
    norm: Norm
    eps: float


class DistilTask(NamedTuple):
    """A substitute to train on the model's predictions."""

    images: int  # of the training part
    pupil: Model
    epochs: int
    seed: int
    norm: Norm
    eps: float


def probe(model: nn.Module, split: Source, task: ProbeTask, surrogate: nn.Module | None) -> Columns:
    """What the attack or the sign finds, `index` and a column a fact. The model is left as it was.

    Raises ValueError and FloatingPointError as judge and search do.
    """
    graded = Graded(model)
    if isinstance(task.probe, SolverSteps):
        return _steps(graded, split, task, task.probe)
    if isinstance(task.probe, Sign):
        return _sign(graded, split, task, task.probe)
    shown = graded if surrogate is None else WithSurrogate(graded, surrogate)
    judging = JudgeTask("test", task.indices, task.probe, task.label, task.seed, targets=0, keep=0)
    judged = judge(model, split, judging, shown)
    return {name: getattr(judged, name) for name in KEPT}


def train_substitute(model: nn.Module, pupil: nn.Module, split: Split, task: DistilTask) -> float:
    """Trains the pupil, where it is; returns the share of examples on which it agrees with the model."""
    device = next(pupil.parameters()).device
    x = split.images(np.arange(min(task.images, len(split)), dtype=np.int64)).to(device)
    rng = rng_of(task.seed, "evaluate", zlib.crc32(b"substitute"))
    return distil(model, pupil, x, (task.norm, task.eps), task.epochs, rng)


def _sign(model: nn.Module, split: Source, task: ProbeTask, sign: Sign) -> Columns:
    scene = _scene(model, split, task)
    right = look(model, scene.x, scene.y).predicted == scene.y
    with frozen(model):
        columns = sign.measure(scene)
    found = {name: column.cpu().numpy() for name, column in {**columns, "right": right}.items()}
    return {"index": task.indices.astype(np.int64), **found}


def _steps(model: nn.Module, split: Source, task: ProbeTask, steps: SolverSteps) -> Columns:
    """A row a block and number of iterations; times are filled up with NaN."""
    with frozen(model):
        grids = steps.grids(_scene(model, split, task))
    longest = max((len(grid.times) for grid in grids), default=0)
    times = [[*grid.times, *[np.nan] * (longest - len(grid.times))] for grid in grids]
    return {
        "index": task.indices.astype(np.int64),
        "block": np.array([grid.block for grid in grids]),
        "iterations": np.array([grid.iterations for grid in grids]),
        "rejected": np.array([grid.rejected for grid in grids]),
        "evaluations": np.array([grid.evaluations for grid in grids]),
        "times": np.array(times),
    }


def _scene(model: nn.Module, split: Source, task: ProbeTask) -> Scene:
    """The examples with a stream each, on the model's device."""
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    x, y = split.images(task.indices).to(device), split.labels(task.indices).to(device)
    purpose = seed_of(task.seed, "evaluate", zlib.crc32(task.label.encode()))
    streams = Streams(torch.from_numpy(task.indices.astype(np.int64)).to(device)).fork(purpose)
    return Scene(model, x, y, task.norm, task.eps, streams)
