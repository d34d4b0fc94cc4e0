"""Random numbers that belong to rows: a counter-based generator with one stream an example.

A row's numbers are a hash (SplitMix64: Steele, Lea and Flood 2014, https://doi.org/10.1145/2714064.2660195) of its own
key, the draw and the position. They do not depend on which rows share its batch, so rows can leave a batch or move to
another worker and nothing changes. There is no state: the same `draw` gives the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from algorithms.tensors import per_row

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 64-bit constants as the signed integers that torch has
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_ALL = (1 << 64) - 1


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser, element by element on int64 (products wrap around)."""
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own keeps the sign)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(z: int) -> int:
    """The same of one number: quicker in Python, and nothing has to go to a device."""
    for bits, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        z &= _ALL
        z = (z ^ (z >> bits)) * factor & _ALL
    return z - (z >> 63 << 64)


@final
@dataclass(frozen=True)
class Streams:
    """One stream of random numbers a row. `keys`: (batch,) int64."""

    keys: Tensor

    @classmethod
    def draw(cls, rng: torch.Generator, batch: int, device: torch.device | str = "cpu") -> Self:
        """A stream for each of `batch` rows; advances `rng`, which lives on the CPU, by `batch` numbers."""
        keys = torch.randint(-(1 << 63), (1 << 63) - 1, (batch,), generator=rng, dtype=torch.int64)
        return cls(keys.to(device))

    def select(self, rows: Tensor) -> Self:
        """The streams of some rows (a mask or indices)."""
        return type(self)(self.keys[rows])

    def fork(self, label: int) -> Self:
        """Fresh streams for a purpose of their own (a restart, say): unlike those of any other label."""
        return type(self)(_mix(self.keys + _mixed((label + 1) * _GOLDEN)))

    def bits(self, shape: tuple[int, ...], draw: int = 0) -> Tensor:
        """(batch, *shape) int64 with 64 random bits each."""
        positions = torch.arange(1, math.prod(shape) + 1, device=self.keys.device) * _GOLDEN
        start = self.fork(draw).keys
        return _mix(start.unsqueeze(1) + positions).view(-1, *shape)

    def uniform(self, shape: tuple[int, ...], draw: int = 0, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """(batch, *shape) uniform in [0, 1), to as many binary digits as `dtype` holds: none is rounded up to 1."""
        precise = torch.float64 if dtype is torch.float64 else torch.float32
        digits = {torch.float64: 53, torch.float16: 11, torch.bfloat16: 8}.get(dtype, 24)
        return (_shifted(self.bits(shape, draw), 64 - digits).to(precise) * 2.0**-digits).to(dtype)

    def normal(self, shape: tuple[int, ...], draw: int = 0, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """(batch, *shape) from the standard normal distribution (Box and Muller 1958)."""
        both = self.uniform((2, *shape), draw, dtype=torch.promote_types(dtype, torch.float32))
        return ((-2 * torch.log1p(-both[:, 0])).sqrt() * torch.cos(2 * math.pi * both[:, 1])).to(dtype)

    def signs(self, shape: tuple[int, ...], draw: int = 0, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """(batch, *shape) of -1 and 1, equally likely (Rademacher)."""
        return torch.where(self.bits(shape, draw) < 0, -1.0, 1.0).to(dtype)

    def integers(self, high: Tensor | int, shape: tuple[int, ...], draw: int = 0) -> Tensor:
        """(batch, *shape) int64 uniform in 0 .. `high` - 1; `high` is one number or one a row."""
        u = self.uniform(shape, draw, dtype=torch.float64)
        if isinstance(high, Tensor):
            bound = per_row(high, u)
            return torch.minimum((u * bound).floor().long(), bound - 1)
        return (u * high).floor().long().clamp(max=high - 1)
