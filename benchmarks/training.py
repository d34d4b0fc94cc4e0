"""Training end to end against a plain loop in one process: the same algorithm, batch, network and data."""

from __future__ import annotations

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
from benchmarks.measuring import CPU, WALL, Row, compare
from orchestrator.backend import Backend, Inline, open_backend
from orchestrator.checkpoints import Checkpoints
from orchestrator.listener import Silent
from orchestrator.loop import Loop
from orchestrator.recipe import Workers
from workers.augmentation import Augmentation
from workers.cache import open_split
from workers.datasets.digits import Digits
from workers.messages import Precision, Work

WIDTH = 48  # of cnn4's first convolution: shards then take some tenths of a second


def work_with(lag: int, precision: Precision = "float32") -> Work:
    """PGD-10 training of a wide cnn4 on digits."""
    return Work(
        seed=0,
        dataset=Digits(),
        augmentation=Augmentation(),
        model=Cnn4(width=WIDTH),
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


def plain_epoch(work: Work) -> None:
    """The same algorithm as anyone would write it."""
    split = open_split(work.dataset, "train")
    model = work.model.build(split.shape, len(split.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    order = torch.randperm(len(split)).numpy()
    for start in range(0, len(order) - work.batch + 1, work.batch):
        chosen = order[start : start + work.batch]
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


def our_epoch(loop: Loop) -> None:
    """The next epoch of a loop that goes on and on."""
    for _ in range(loop.per_epoch):
        loop.advance()
        loop.step += 1


def plain_on(work: Work, threads: int) -> None:
    """The plain loop with so many of torch's own threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        plain_epoch(work)
    finally:
        torch.set_num_threads(before)


def run() -> list[Row]:
    """One core against one core, by the process's CPU time; then Ray's workers on two cores, by the clock."""
    rows = []
    work = work_with(0)
    for precision in get_args(Precision):
        loop = started(work_with(0, precision), Inline(work_with(0, precision)))
        names = (f"training inline, attacks in {precision}", "a plain loop in float32")
        rows.append(compare(names, partial(our_epoch, loop), partial(plain_epoch, work), CPU, 3))
    for lag in (0, 1):
        with open_backend(Workers(attackers=2), work, Silent()) as backend:
            loop = started(work_with(lag), backend)
            for threads in (1, 2):
                names = (f"training on 2 attackers, lag {lag}", f"a plain loop, threads: {threads}")
                ours, theirs = partial(our_epoch, loop), partial(plain_on, work, threads)
                rows.append(compare(names, ours, theirs, WALL, 3))
    return rows
