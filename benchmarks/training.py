"""Training end to end against a plain loop: the same algorithm, batch, network and data.

The plain loop has a process of its own, where torch is as it comes, with nothing forbidden. Only what it frees is kept,
as in workers: without that, luck decides whether a step of MNIST takes up to 0.8 s more, for pages faulted in again.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from algorithms.models.cnn4 import Cnn4
from algorithms.updates.sgd import SGD
from benchmarks.attack_floor import bare_loop
from benchmarks.data import images
from benchmarks.measuring import CPU, WALL, Clock, Row, paired, seconds_of
from orchestrator.backend import Backend, Inline, open_backend
from orchestrator.checkpoints import Checkpoints
from orchestrator.listener import Silent
from orchestrator.loop import Loop
from orchestrator.recipe import Workers
from workers import runtime
from workers.augmentation import Augmentation
from workers.cache import open_split
from workers.datasets import Dataset
from workers.datasets.digits import Digits
from workers.messages import Precision, Work

WIDTH = 48  # of cnn4's first convolution: shards then take some tenths of a second
STEPS = 5  # that are timed together: an epoch of digits
ATTACKERS, LAGS = (1, 2, 4), (0, 1)
PAUSE = 1.5  # seconds, in which attackers finish what `lag` let them begin

Maker = Callable[[nn.Module, Tensor, Tensor], Tensor]  # of adversarial examples, for a plain loop


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


def plain_loop(work: Work, maker: Maker) -> Callable[[int], None]:
    """The same algorithm as anyone would write it, as a function that makes some steps."""
    split = open_split(work.dataset, "train")
    model = work.model.build(split.shape, len(split.classes)).to(work.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    order = torch.randperm(len(split)).numpy()

    def steps(count: int) -> None:
        for step in range(count):
            chosen = order[step * work.batch : (step + 1) * work.batch]
            x, y = split.images(chosen).to(work.device), split.labels(chosen).to(work.device)
            model.eval().requires_grad_(False)
            x_adv = maker(model, x, y)
            model.train().requires_grad_(True)
            loss = functional.cross_entropy(model(x_adv), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


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


def steady_seconds(loop: Loop, count: int) -> float:
    """How long steps take by the clock, while those before them are made and the attackers look ahead as usual."""
    our_steps(loop, 1 + loop.work.lag)
    seconds = seconds_of(partial(our_steps, loop, count), WALL)
    if loop.work.lag:
        time.sleep(PAUSE)
    return seconds


@cache
def warm_loop(work: Work, maker: Maker) -> Callable[[int], None]:
    """This process's plain loop, which has the memory that it needs after two steps."""
    loop = plain_loop(work, maker)
    loop(2)
    return loop


def plain_seconds(work: Work, count: int, threads: int, clock: Clock, maker: Maker) -> float:
    """How long the plain loop takes with so many of torch's own threads."""
    torch.set_num_threads(threads)
    return seconds_of(partial(warm_loop(work, maker), count), clock)


def fresh() -> Executor:
    """A process for one plain loop."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=runtime.keep_memory)


def against(
    plain: Executor, work: Work, count: int, threads: int, clock: Clock, maker: Maker = bare_loop
) -> Callable[[], float]:
    """The plain loop in its process, as a work that says how many seconds count."""
    return lambda: plain.submit(plain_seconds, work, count, threads, clock, maker).result()


def inline(what: str, work: Work, count: int, plain: Executor) -> list[Row]:
    """In one process, examples in each precision, against the plain loop in float32; by the process's CPU time."""
    rows = []
    for precision in get_args(Precision):
        chosen = dataclasses.replace(work, precision=precision)
        loop = started(chosen, Inline(chosen))
        names = (f"{what}, inline, attacks in {precision}", "a plain loop in float32")
        ours = partial(seconds_of, partial(our_steps, loop, count), CPU)
        rows.append(paired(names, ours, against(plain, work, count, 1, CPU), 5))
    return rows


def on_ray(what: str, work: Work, count: int, attackers: int, plain: Executor) -> list[Row]:
    """On Ray against the plain loop with one thread and with two; by the clock."""
    rows = []
    with open_backend(Workers(attackers=attackers), work, Silent()) as backend:
        loop = started(work, backend)
        for threads in (1, 2):
            names = (f"{what}, {attackers} attackers, lag {work.lag}", f"a plain loop, threads: {threads}")
            ours = partial(steady_seconds, loop, count)
            theirs = against(plain, dataclasses.replace(work, lag=0), count, threads, WALL)  # one loop for either lag
            rows.append(paired(names, ours, theirs, 3))
    return rows


def run() -> list[Row]:
    """One core against one core, then Ray's workers on two cores."""
    rows = trained("digits", work_with(0), STEPS, ATTACKERS)
    if isinstance(images(), Digits):
        return rows
    return rows + trained("MNIST", work_with(0, dataset=images(), width=Cnn4().width), 2, (2,))


def trained(what: str, work: Work, count: int, attackers: Sequence[int]) -> list[Row]:
    """The rows of one dataset; `count` steps are timed together."""
    with fresh() as plain:
        rows = inline(what, work, count, plain)
        for crew, lag in itertools.product(attackers, LAGS):
            rows += on_ray(what, dataclasses.replace(work, lag=lag), count, crew, plain)
        return rows
