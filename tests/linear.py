"""A model and a data set whose robust accuracy is known by hand: two classes and a linear gap between their logits.

In l-infinity a perturbation of size eps moves the gap `g = w . (x - 0.5)` by at most `eps * |w|_1`, as long as no pixel
leaves [0, 1]; so an example falls at `|g| / |w|_1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.models import Model, Shape
from workers.datasets import Dataset, Examples, Part

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
