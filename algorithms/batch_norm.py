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
    kept = [(pair, pair.layer.weight, pair.layer.bias, type(pair.norm)) for pair in pairs(network)]
    try:
        for pair, source in zip(pairs(network), pairs(exact or network), strict=True):
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
    precise = torch.promote_types(layer.weight.dtype, torch.float32)
    mean, variance = (_given(value, precise) for value in (norm.running_mean, norm.running_var))
    scale = (variance + norm.eps).rsqrt() * _given(norm.weight, precise, 1)
    bias = (_given(layer.bias, precise) - mean) * scale + _given(norm.bias, precise)
    weight = layer.weight * scale.view(-1, *([1] * (layer.weight.dim() - 1)))
    dtype = pair.layer.weight.dtype
    pair.layer.weight, pair.layer.bias = (nn.Parameter(value.to(dtype), False) for value in (weight, bias))
    pair.norm.__class__ = Folded


def _given(values: Tensor | None, dtype: torch.dtype, otherwise: float = 0) -> Tensor:
    return torch.tensor(otherwise, dtype=dtype) if values is None else values.to(dtype)
