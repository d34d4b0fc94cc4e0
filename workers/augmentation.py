"""Random crops and flips that belong to examples: the same example is changed alike whatever its batch holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from algorithms import checks
from algorithms.streams import Streams

_SEEDS = 1 << 62  # larger seeds start again at 0


@final
@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A random crop out of the padded image, and a random mirror image. By default nothing is changed."""

    crop: int = 0  # zero pixels put around the image, out of which a piece of the original size is cut
    flip: bool = False  # left and right change places in half of the examples

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.between("crop", self.crop, 0, 1024, "a number of pixels around the image")

    def __call__(self, x: Tensor, *, seed: int, epoch: int, indices: Tensor) -> Tensor:
        """`x` (batch, channels, height, width), of any type, changed row by row.

        A row's change is a function of `seed`, `epoch` and its example's index alone; `indices` is (batch,) int64.
        Raises ValueError if the padding is as large as the image, which could then leave the picture.
        """
        if not self.crop and not self.flip:
            return x
        if self.crop >= min(x.shape[2:]):
            raise ValueError(f"crop: less than the {x.shape[2]}x{x.shape[3]} pixels of an image, not {self.crop}")
        streams = Streams(indices.to(x.device)).fork(seed % _SEEDS).fork(epoch)
        down, right = streams.integers(2 * self.crop + 1, (2,), draw=0).unbind(1)
        rows = down.unsqueeze(1) + torch.arange(x.shape[2], device=x.device)
        columns = torch.arange(x.shape[3], device=x.device).repeat(len(x), 1)
        if self.flip:
            mirrored = streams.bits((1,), draw=1) < 0
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(x, [self.crop] * 4)
        return _picked(padded, rows, right.unsqueeze(1) + columns)


def _picked(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Of each image in `x` its own rows (batch, height) and columns (batch, width)."""
    tall = rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    wide = columns[:, None, None, :].expand(-1, x.shape[1], rows.shape[1], -1)
    return x.gather(2, tall).gather(3, wide)
