"""A model and a data set whose robust accuracy is known by hand: two classes and a linear gap between their logits.

In l-infinity a perturbation of size eps moves the gap `g = w . (x - 0.5)` by at most `eps * |w|_1`, as long as no pixel
leaves [0, 1]; so an example falls at `|g| / |w|_1`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.models import Model, Shape
from orchestrator import evaluation
from orchestrator.backend import Inline
from orchestrator.evaluations.targets import Target
from orchestrator.folders import RunFolder
from orchestrator.recipe import Evaluation, Recipe, Workers
from workers.datasets import Dataset, Examples, Part
from workers.judge import JudgeTask

EPS = 0.03
W = np.array([1.0, -2.0, 3.0, 0.5, -0.5, 1.5, -1.0, 2.0, 0.25])


class Gap(nn.Module):
    """Logits (g, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(W, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        gap = (x - 0.5).flatten(1) @ self.w
        return torch.stack([gap, torch.zeros_like(gap)], 1)


@final
@dataclass(frozen=True, kw_only=True)
class Linear(Model):
    """Builds `Gap`."""

    def build(self, shape: Shape, classes: int) -> nn.Module:
        return Gap()


@final
@dataclass(frozen=True, kw_only=True)
class Points(Dataset):
    """Images near grey; every tenth is labelled with the class that the model does not give it."""

    count: int = 300

    def fingerprint(self, part: Part) -> str:
        return f"points {self.count} {part}"

    def read(self, part: Part) -> Examples:
        generator = np.random.default_rng(0 if part == "test" else 1)
        images = generator.integers(90, 166, (self.count, 1, 3, 3)).astype(np.uint8)
        labels = (gaps(images) < 0).astype(np.int64)
        labels[::10] = 1 - labels[::10]
        return Examples(images, labels, ("right", "left"))


def gaps(images: np.ndarray) -> np.ndarray:
    """The gap of every image, by hand."""
    return (images.reshape(len(images), -1) / 255 - 0.5) @ W


def falls_at(images: np.ndarray) -> np.ndarray:
    """The smallest perturbation in l-infinity that changes the prediction."""
    return np.abs(gaps(images)) / np.abs(W).sum()


@dataclass
class Watch:
    """What attackers are given, and after how many shards the driver is interrupted."""

    tasks: list[JudgeTask] = field(default_factory=list)
    shards: float = math.inf


class Calls(Inline):  # type: ignore[misc] - a test may watch what nobody else may extend
    """The inline backend, watched."""

    watch: Watch

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        self.watch.tasks.append(arguments[0])
        super().submit(key, method, *arguments)

    def collect(self, keys: Any) -> Any:
        if not self.watch.shards:
            raise KeyboardInterrupt
        self.watch.shards -= 1
        return super().collect(keys)


def watch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Watch:
    """Watches all evaluations of a test; data sets are cached in the test's own folder."""
    watched = Watch()

    @contextlib.contextmanager
    def opened(workers: Workers, work: Any, listener: Any, *, training: bool) -> Iterator[Calls]:
        backend = Calls(work)
        backend.watch = watched
        yield backend

    monkeypatch.setenv("SPARRING_CACHE", str(folder / "cache"))
    monkeypatch.setattr(evaluation, "open_backend", opened)
    monkeypatch.setattr(evaluation, "figures_of", lambda outcome: {})  # plots have tests of their own, and take seconds
    return watched


def target(folder: Path, **asked: Any) -> Target:
    given = Evaluation(**{"suite": "demo", "eps": EPS, **asked})
    recipe = Recipe(model=Linear(), dataset=Points(), evaluation=given, workers=Workers(backend="inline"))
    return Target(RunFolder(folder), recipe, Gap().state_dict())
