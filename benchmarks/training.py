"""Training end to end against a plain loop in one process: the same algorithm, batch, network and data."""

from __future__ import annotations

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch.nn import functional

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from algorithms.models.cnn4 import Cnn4
from algorithms.updates.sgd import SGD
from benchmarks.attack_floor import bare_loop
from benchmarks.data import images
from benchmarks.measuring import CPU, WALL, Row, compare
from orchestrator.backend import Backend, Inline, open_backend
from orchestrator.checkpoints import Checkpoints
from orchestrator.listener import Silent
from orchestrator.loop import Loop
from orchestrator.recipe import Workers
from workers.augmentation import Augmentation
from workers.cache import open_split
from workers.datasets import Dataset
from workers.datasets.digits import Digits
from workers.messages import Precision, Work

WIDTH = 48  # of cnn4's first convolution: shards then take some tenths of a second
STEPS = 5  # that are timed together: an epoch of digits
ATTACKERS = (1, 2, 4)


def work_with(lag: int, precision: Precision = "float32", dataset: Dataset = Digits(), width: int = WIDTH) -> Work:  # noqa: B008
    """PGD-10 training of a cnn4."""
    return Work(
        seed=0,
        dataset=dataset,
        augmentation=Augmentation(),
        model=Cnn4(width=width),
        defense=Adversarial(attack=PGD(eps=0.3, step_size=0.075, steps=10)),
        update=SGD(learning_rate=0.01, momentum=0.9, weight_decay=1e-4),
        validation=0.0,
        epochs=1000,
        batch=256,
        shard=64,
        lag=lag,
        exchange="examples",
        precision=precision,
        reduction="tree",
        average=0.0,
        device="cpu",
        threads=1,
    )


def plain_steps(work: Work, count: int) -> None:
    """The same algorithm as anyone would write it."""
    split = open_split(work.dataset, "train")
    model = work.model.build(split.shape, len(split.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    order = torch.randperm(len(split)).numpy()
    for step in range(count):
        chosen = order[step * work.batch : (step + 1) * work.batch]
        x, y = split.images(chosen), split.labels(chosen)
        model.eval().requires_grad_(False)
        x_adv = bare_loop(model, x, y)
        model.train().requires_grad_(True)
        loss = functional.cross_entropy(model(x_adv), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def started(work: Work, backend: Backend) -> Loop:
    """A loop whose trainer has started: that takes seconds, once a run."""
    folder = Path(tempfile.mkdtemp())  # no checkpoint is ever written
    loop = Loop(work, len(open_split(work.dataset, "train")), backend, Checkpoints(folder, Silent()), "")
    loop.restore()
    return loop


def our_steps(loop: Loop, count: int) -> None:
    """The next steps of a loop that goes on and on."""
    for _ in range(count):
        loop.advance()
        loop.step += 1


def plain_on(work: Work, threads: int) -> None:
    """The plain loop with so many of torch's own threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plain_steps(work, STEPS)
    finally:
        torch.set_num_threads(before)


def inline(what: str, work: Work, count: int) -> list[Row]:
    """In one process, examples in each precision, against the plain loop in float32; by the process's CPU time."""
    rows = []
    for precision in get_args(Precision):
        chosen = dataclasses.replace(work, precision=precision)
        loop = started(chosen, Inline(chosen))
        names = (f"{what}, inline, attacks in {precision}", "a plain loop in float32")
        rows.append(compare(names, partial(our_steps, loop, count), partial(plain_steps, work, count), CPU, 3))
    return rows


def on_ray(work: Work, attackers: int, lag: int) -> list[Row]:
    """On Ray against the plain loop with one thread and with two; by the clock."""
    rows = []
    with open_backend(Workers(attackers=attackers), work, Silent()) as backend:
        loop = started(dataclasses.replace(work, lag=lag), backend)
        for threads in (1, 2):
            names = (f"digits, {attackers} attackers, lag {lag}", f"a plain loop, threads: {threads}")
            ours, theirs = partial(our_steps, loop, STEPS), partial(plain_on, work, threads)
            rows.append(compare(names, ours, theirs, WALL, 3))
    return rows


def run() -> list[Row]:
    """One core against one core, then Ray's workers on two cores."""
    digits, other = work_with(0), images()
    rows = inline("digits", digits, STEPS)
    if not isinstance(other, Digits):
        rows += inline("MNIST", work_with(0, dataset=other, width=Cnn4().width), 1)
    return rows + [row for count in ATTACKERS for lag in (0, 1) for row in on_ray(digits, count, lag)]
