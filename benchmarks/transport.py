"""What WasserAttack costs by image size and window: time of a step against the smallest case, and peak memory.

A plan has pixels * window^2 numbers, and with window 0 pixels^2; time and memory follow it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.search import search
from benchmarks.measuring import CPU, Row, compare
from benchmarks.wasserstein.memory import CASES, linear, peaks

BATCH, STEPS = 8, 5


def run() -> list[Row]:
    """A row a case."""
    first, rows = CASES[0], []
    for case, taken in zip(CASES, peaks(), strict=True):
        row = compare((title(case), title(first)), work(case), work(first), CPU, pairs=3)
        size, each = plan(case) / plan(first), 1e3 * row.seconds / STEPS / BATCH
        note = f"where a plan is {size:.1f} times as large; {each:.2f} ms a step, {taken / 1e3:.0f} kB an image"
        rows.append(replace(row, note=note))
    return rows


def title(case: tuple[int, int]) -> str:
    """What a table calls a case."""
    side, window = case
    return f"WasserAttack {side}x{side}, " + (f"{window}x{window}" if window else "all")


def plan(case: tuple[int, int]) -> int:
    """Numbers in a plan of one channel."""
    side, window = case
    return side**2 * (window**2 or side**2)


def work(case: tuple[int, int]) -> Callable[[], object]:
    """The attack on a batch of noise and a linear model."""
    side, window = case
    model, x, y = linear(side, BATCH)
    attack = WasserAttack(window=window, steps=STEPS)
    return lambda: search(attack, model, x, y, rng=torch.Generator().manual_seed(0), policy="highest loss")
