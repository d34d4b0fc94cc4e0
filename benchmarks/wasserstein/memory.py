"""What an attack in a Wasserstein ball needs: peak memory, each case in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource

import torch
from torch import nn

from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.search import search

CASES = ((14, 5), (28, 3), (28, 5), (28, 7), (56, 5), (28, 0))  # side of the image, window
BATCH, STEPS = 64, 3


def peak(case: tuple[int, int]) -> float:
    """Bytes an image that an attack on a linear model takes at most, by the process's peak."""
    side, window = case
    batch = BATCH if window else 4
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(side**2, 10))
    rng = torch.Generator().manual_seed(0)
    y = torch.zeros(batch, dtype=torch.int64)
    search(WasserAttack(window=3, steps=1), model, torch.rand(1, 1, side, side, generator=rng), y[:1], rng=rng)  # warm
    x = torch.rand(batch, 1, side, side, generator=rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    search(WasserAttack(window=window, steps=STEPS), model, x, y, rng=rng, policy="highest loss")
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / batch


def memory() -> str:
    """A table: peak memory an image, and how many plans of pixels * window^2 floats that is."""
    lines = ["| pixels | window | memory an image, kB | over one plan |", "| --- | --- | --- | --- |"]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case, taken in zip(CASES, pool.imap(peak, CASES), strict=True):
            side, window = case
            plan = 4 * side**2 * (window**2 or side**2)
            lines.append(f"| {side}x{side} | {window or 'all'} | {taken / 1e3:.0f} | {taken / plan:.1f} |")
    return "\n".join(lines)
