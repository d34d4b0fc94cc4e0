"""Batch norms as part of the layers before them, as long as weights and statistics stand still: in an attack.

In evaluation mode a batch norm makes s (z - mean) + shift of a channel z, with s = gamma / sqrt(var + e). Together with
the layer before it, z = W x + b, it is a layer with weights s W and biases s (b - mean) + shift: a pass need not go
through the norm at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.convolution import PixelConv2d

LAYERS, NORMS = (nn.Linear, nn.Conv2d, PixelConv2d), (nn.BatchNorm1d, nn.BatchNorm2d)  # no class derived from them


class Pair(NamedTuple):
    """A layer, and the batch norm that sees what it returns."""

    layer: Any  # of LAYERS
    norm: Any  # of NORMS


@final
class Folded(_BatchNorm):
    """A batch norm whose work another layer does."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """The input. Raises RuntimeError in training mode, which has no statistics to fold."""
        if self.training:
            raise RuntimeError("a folded batch norm takes no statistics: train the network outside of `folded`")
        return input


@contextmanager
def folded(network: nn.Module, exact: nn.Module | None = None) -> Iterator[None]:
    """Within the block passes in evaluation mode skip batch norms that follow a layer in an `nn.Sequential`.

    Logits agree but for their last bits. Its layers must be called one after the other, as a Sequential does; what a
    hook sees of one that is folded comes after its norm. The parameters that are there within the block need no
    gradient and must not be changed; at its end they are those of before. `exact` is the network in a higher precision,
    whose weights are then rounded once, not twice.
    """
    found = pairs(network)
    sources = found if exact is None or exact is network else pairs(exact)
    kept = [(pair, pair.layer.weight, pair.layer.bias, type(pair.norm)) for pair in found]
    try:
        for pair, source in zip(found, sources, strict=True):
            _fold(pair, source)
        yield
    finally:
        for (layer, norm), weight, bias, kind in kept:
            layer.weight, layer.bias, norm.__class__ = weight, bias, kind


def pairs(network: nn.Module) -> list[Pair]:
    """What can be folded: where nothing else uses the layer, its parameters or the norm."""
    uses = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    owners = Counter(parameter for module in uses for parameter in module.parameters(recurse=False))
    neighbours = [pair for parent in uses if type(parent) is nn.Sequential for pair in pairwise(parent)]
    found = [Pair(layer, norm) for layer, norm in neighbours if type(layer) in LAYERS and type(norm) in NORMS]
    return [pair for pair in found if _alone(pair, uses, owners) and pair.norm.running_var is not None]


def _alone(pair: Pair, uses: Counter[nn.Module], owners: Counter[nn.Parameter]) -> bool:
    return all(uses[module] == 1 for module in pair) and all(owners[p] == 1 for p in pair.layer.parameters())


@torch.no_grad()
def _fold(pair: Pair, source: Pair) -> None:
    layer, norm = source
    scale, dtype = scale_of(norm), pair.layer.weight.dtype
    bias = scale * (-norm.running_mean if layer.bias is None else layer.bias - norm.running_mean)
    bias = bias if norm.bias is None else bias + norm.bias
    weight = scaled(layer.weight, scale)
    pair.layer.weight, pair.layer.bias = (nn.Parameter(value.to(dtype), False) for value in (weight, bias))
    pair.norm.__class__ = Folded


def plain_scale(norm: _BatchNorm) -> Tensor:
    """1 / sqrt(var + e): by how much a batch norm multiplies each channel, but for the factor that it learns.

    Raises ValueError for one that keeps no running statistics: it has no fixed scale.
    """
    if norm.running_var is None:
        raise ValueError(
            "a batch norm without running statistics has no scale of its own; set track_running_stats=True"
        )
    return (norm.running_var + norm.eps).rsqrt()


def scale_of(norm: _BatchNorm) -> Tensor:
    """By how much a batch norm multiplies each channel in evaluation mode. Raises ValueError as `plain_scale` does."""
    plain = plain_scale(norm)
    return plain if norm.weight is None else plain * norm.weight.detach()


def scaled(theta: Tensor, scale: Tensor) -> Tensor:
    """The weights as they are with a batch norm's scale after them."""
    return theta * rows(scale, theta)


def rows(scale: Tensor, theta: Tensor) -> Tensor:
    """The scale with the axes of `theta`, one number an output."""
    return scale.to(theta.dtype).view(-1, *([1] * (theta.dim() - 1)))
