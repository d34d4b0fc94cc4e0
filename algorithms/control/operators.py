"""A convolution as the linear operator that it is: its norm and the projection on a bounded norm, by frequencies.

A convolution on a torus of n x n positions is block diagonal in the Fourier basis: one matrix (outputs x inputs) a
frequency (Sedghi et al. 2019, https://arxiv.org/abs/1805.10408). A stride of s folds s x s frequencies into one: their
matrices stand side by side, divided by s. A zero-padded convolution of images of n pixels is a part of the one on any
torus of n + k - 1 positions or more, so the norm there bounds its own from above.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from algorithms.control import clipping

Padding = Literal["zeros", "circular"]
CHUNK = 1 << 22  # complex numbers that are held at a time while a norm is measured


class Geometry(NamedTuple):
    """How a kernel is laid over an image."""

    size: tuple[int, int]  # rows and columns of the layer's input
    stride: tuple[int, int] = (1, 1)
    padding: Padding = "zeros"
    dilation: tuple[int, int] = (1, 1)


class Spectrum(NamedTuple):
    """The waves that a kernel is measured with. Of two conjugate frequencies one is enough."""

    waves: Tensor  # (positions of the kernel, frequencies, folded)
    weights: Tensor  # (frequencies,) how many frequencies of the whole torus each stands for, over their number


def spectrum(kernel: Tensor, geometry: Geometry) -> Spectrum:
    """The frequencies of the torus that `geometry` needs, for the positions of `kernel`."""
    torus, stride = _torus(kernel, geometry)
    folds = [torch.arange(s) * (n // s) for n, s in zip(torus, stride, strict=True)]
    high, wide = torus[0] // stride[0], torus[1] // stride[1]
    base = torch.cartesian_prod(torch.arange(high), torch.arange(wide // 2 + 1))
    fold = torch.cartesian_prod(*folds)
    frequencies = (base[:, None] + fold[None]).double() / torch.tensor(torus)
    spots = [torch.arange(k) * d for k, d in zip(kernel.shape[2:], geometry.dilation, strict=True)]
    angles = torch.einsum("pa,fsa->pfs", torch.cartesian_prod(*spots).double(), frequencies)
    alone = (base[:, 1] == 0) | (2 * base[:, 1] == wide)
    weights = torch.where(alone, 1.0, 2.0).double() / (torus[0] * torus[1])
    wave = torch.polar(torch.ones_like(angles), -2 * torch.pi * angles)
    return Spectrum(wave.to(kernel.device), weights.to(kernel.device))


def _torus(kernel: Tensor, geometry: Geometry) -> tuple[list[int], tuple[int, int]]:
    """Rows and columns of the torus, and the stride on it: 1 where the stride does not divide a circular image."""
    if kernel.dim() != 4:
        raise ValueError(f"a kernel (outputs, inputs, rows, columns), not a weight of shape {tuple(kernel.shape)}")
    if geometry.padding == "circular":
        whole = all(n % s == 0 for n, s in zip(geometry.size, geometry.stride, strict=True))
        return list(geometry.size), geometry.stride if whole else (1, 1)
    reach = [(k - 1) * d for k, d in zip(kernel.shape[2:], geometry.dilation, strict=True)]
    room = [n + r for n, r in zip(geometry.size, reach, strict=True)]
    return [math.ceil(n / s) * s for n, s in zip(room, geometry.stride, strict=True)], geometry.stride


def norm(kernel: Tensor, geometry: Geometry) -> float:
    """The operator norm for circular padding (an upper bound if the stride does not divide the image); else a bound."""
    waves = spectrum(kernel, geometry).waves
    each = max(1, CHUNK // (kernel.shape[0] * kernel.shape[1] * waves.shape[2]))
    parts = waves.split(each, dim=1)
    return max(float(clipping.norm(_forward(kernel.double(), part)).max()) for part in parts)


def project(kernel: Tensor, geometry: Geometry, bound: float, iterations: int) -> Tensor:
    """A kernel near `kernel` whose operator norm is at most `bound`.

    Dykstra's alternation between operators of bounded norm and kernels of this size goes to the nearest such kernel;
    cut short, it is outside by a little, and divided by its exact norm.
    """
    if norm(kernel, geometry) <= bound:
        return kernel
    waves, weights = spectrum(kernel, geometry)
    _check_room(kernel, geometry)
    point = _forward(kernel.double(), waves)
    correction = torch.zeros_like(point)
    nearest = kernel.double()
    for _ in range(iterations):
        clipped = clipping.clip(point + correction, bound)
        correction = point + correction - clipped
        nearest = _backward(clipped, waves, weights).reshape(kernel.shape)
        point = _forward(nearest, waves)
    margin = 1 - torch.finfo(kernel.dtype).eps * math.sqrt(kernel[0].numel()) * max(kernel.shape[2:])
    return (nearest * min(1.0, margin * bound / norm(nearest, geometry))).to(kernel.dtype)


def _check_room(kernel: Tensor, geometry: Geometry) -> None:
    torus, _ = _torus(kernel, geometry)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape[2:], geometry.dilation, strict=True)]
    if any(r > n for r, n in zip(reach, torus, strict=True)):
        raise ValueError(f"images of {reach[0]}x{reach[1]} or more for this kernel, not {torus[0]}x{torus[1]}")


def _forward(kernel: Tensor, waves: Tensor) -> Tensor:
    """The matrices (frequencies, outputs, inputs x folded) of a kernel."""
    folded = waves.shape[2]
    values: Tensor = torch.einsum("ocp,pfs->focs", kernel.flatten(2).to(waves.dtype), waves)
    return values.flatten(2) / math.sqrt(folded)


def _backward(matrices: Tensor, waves: Tensor, weights: Tensor) -> Tensor:
    """The kernel (outputs, inputs, positions) nearest to some matrices."""
    folded = waves.shape[2]
    values = matrices.unflatten(2, (-1, folded)) * math.sqrt(folded)
    kernel: Tensor = torch.einsum("focs,pfs,f->ocp", values, waves.conj(), weights.to(waves.dtype))
    return kernel.real
