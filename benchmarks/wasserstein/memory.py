"""What an attack in a Wasserstein ball needs: peak memory, each case in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.search import search

CASES = ((14, 5), (28, 3), (28, 5), (28, 7), (56, 5), (28, 0))  # side of the image, window
BATCH, STEPS = 64, 3
FEW = 4  # images of a batch where the window is the whole image


def linear(side: int, batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model, images of noise, and labels."""
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(side**2, 10))
    return model, torch.rand(batch, 1, side, side, generator=rng), torch.zeros(batch, dtype=torch.int64)


def peak(case: tuple[int, int]) -> float:
    """Bytes an image that an attack on a linear model takes at most, by the process's peak."""
    side, window = case
    batch, rng = BATCH if window else FEW, torch.Generator().manual_seed(0)
    torch.set_num_threads(1)
    model, x, y = linear(side, batch)
    search(WasserAttack(window=3, steps=1), model, x[:1], y[:1], rng=rng)  # warm
    before = largest()
    search(WasserAttack(window=window, steps=STEPS), model, x, y, rng=rng, policy="highest loss")
    return (largest() - before) / batch


def largest() -> int:
    """Bytes that this process has held at most; `getrusage` would begin with what its parent held."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def peaks() -> list[float]:
    """Of each of `CASES`."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.map(peak, CASES, chunksize=1)


def memory() -> str:
    """A table: peak memory an image, and how many plans of pixels * window^2 floats that is."""
    lines = ["| pixels | window | memory an image, kB | over one plan |", "| --- | --- | --- | --- |"]
    for (side, window), taken in zip(CASES, peaks(), strict=True):
        plan = 4 * side**2 * (window**2 or side**2)
        lines.append(f"| {side}x{side} | {window or 'all'} | {taken / 1e3:.0f} | {taken / plan:.1f} |")
    return "\n".join(lines)
