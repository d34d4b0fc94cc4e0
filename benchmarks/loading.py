"""Data loading: a shuffled batch from the cache file that all processes of a machine map, over one from memory."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch

from algorithms.tensors import Images
from benchmarks.data import images
from benchmarks.measuring import CPU, Row, compare
from workers.cache import Split, open_split

BATCH, BATCHES = 256, 40


def run() -> list[Row]:
    """Pixels to floats are part of both."""
    split = open_split(images(), "train")
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(split)))
    batches = list(itertools.islice(itertools.cycle(rows.split(BATCH)), BATCHES))
    stored = torch.from_numpy(split.stored.images.copy())
    names = (f"{BATCHES} batches of {BATCH} from the cache file", "the same from a tensor in memory")
    return [compare(names, partial(mapped, split, batches), partial(held, stored, batches), CPU)]


def mapped(split: Split, batches: list[torch.Tensor]) -> list[Images]:
    """From the mapped file."""
    return [split.images(batch) for batch in batches]


def held(stored: torch.Tensor, batches: list[torch.Tensor]) -> list[Images]:
    """From memory."""
    return [stored[batch].float().div_(255) for batch in batches]
