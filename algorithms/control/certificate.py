"""Certified l2 radii from the product of operator norms (Tsuzuku et al. 2018, https://arxiv.org/abs/1802.04034).

If no layer enlarges an l2 distance more than its gain, the logits move by at most L = the product of gains times the
perturbation, and the difference of two logits by at most sqrt(2) L. So no perturbation below margin / (sqrt(2) L)
changes the class. Gains are bounds in exact arithmetic; rounding in the network's own precision is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.batch_norm import scale_of, scaled
from algorithms.blocks import BasicBlock, Multiply, PreActivationBlock
from algorithms.control import clipping, operators
from algorithms.control.operators import Geometry
from algorithms.gradients import dtype_of
from algorithms.models import Shape
from algorithms.modes import frozen
from algorithms.normalisation import Standardise
from algorithms.tensors import Images, Labels, Logits, PerRow

HARMLESS = (
    *(nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d),
    *(nn.ReLU, nn.ReLU6, nn.Tanh, nn.Hardtanh, nn.Softplus),
)


class Certificate(NamedTuple):
    """By how much a network can enlarge an l2 distance."""

    lipschitz: float  # from pixels to logits
    gains: dict[str, float]  # of each layer, whose product that is; a batch norm is counted with the layer before it


def certify(model: nn.Module, shape: Shape) -> Certificate:
    """The bound for a chain of layers and residual blocks, in evaluation mode, on images of `shape`.

    The gain of a block is the sum of those of its ways. Raises ValueError, naming the layer, where a gain is not known.
    """
    with frozen(model), torch.no_grad():
        device = next((parameter.device for parameter in model.parameters()), None)
        return _along("", model, torch.zeros(1, *shape, dtype=dtype_of(model), device=device))


def _along(path: str, model: nn.Module, x: Images) -> Certificate:
    """The bound for the chain of a module's layers, on inputs like `x`."""
    gains, folded = {}, False
    for (name, module), (_, after) in pairwise([*_chain(path, model), ("", nn.Identity())]):
        scale = None
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(after, _BatchNorm):
            scale = scale_of(after)
        if isinstance(module, BasicBlock | PreActivationBlock):
            gains[name] = _block(name, module, x)
        elif not folded:
            gains[name] = _gain(name, module, tuple(x.shape[1:]), scale)
        folded = scale is not None
        x = module(x)
    return Certificate(math.prod(gains.values()), gains)


def _block(name: str, block: BasicBlock | PreActivationBlock, x: Images) -> float:
    """The sum over both ways; what stands before a fork counts for both, unless the shortcut goes around it."""
    if isinstance(block, BasicBlock):
        return sum(_along(f"{name}.{way}", getattr(block, way), x).lipschitz for way in ("branch", "shortcut"))
    before, branched = (_along(f"{name}.{part}", getattr(block, part), x) for part in ("activation", "branch"))
    if block.shortcut is None:
        return 1 + before.lipschitz * branched.lipschitz
    return before.lipschitz * (branched.lipschitz + _along(f"{name}.shortcut", block.shortcut, x).lipschitz)


def radii(logits: Logits, y: Labels, lipschitz: float) -> PerRow:
    """Up to which l2 norm, in pixel units, no perturbation turns a row's class from `y`; 0 where it is another."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    best = logits.scatter(1, y[:, None], -math.inf).amax(1)
    margin = (own - best).double()
    return torch.where(margin > 0, margin / (math.sqrt(2) * lipschitz), 0.0)


def _chain(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested `nn.Sequential`s, one after the other."""
    if type(module).forward is nn.Sequential.forward:
        for key, child in module.named_children():
            yield from _chain(f"{name}.{key}" if name else key, child)
    else:
        yield name, module


def _gain(name: str, module: nn.Module, shape: tuple[int, ...], scale: Tensor | None) -> float:
    """How many times a layer, with the scale of a batch norm after it, enlarges an l2 distance at most."""
    if isinstance(module, nn.Linear):
        return float(clipping.norm(_scaled(module.weight, scale)))
    if isinstance(module, nn.Conv2d):
        return _convolution(name, module, shape, scale)
    if isinstance(module, _BatchNorm):
        return float(scale_of(module).abs().max())
    return _fixed(name, module, shape)


def _fixed(name: str, module: nn.Module, shape: tuple[int, ...]) -> float:
    """The gain of a layer that has no parameters."""
    if isinstance(module, Standardise):
        return float(1 / module.std.min())
    if isinstance(module, Multiply):
        return abs(module.factor)
    if isinstance(module, nn.LeakyReLU):
        return max(1.0, abs(module.negative_slope))
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return _pool(name, module, shape)
    if isinstance(module, HARMLESS):
        return 1.0
    raise ValueError(
        f"no certificate: {name or 'the model'!r} is a {type(module).__name__}, whose gain is not known; certified are "
        "nn.Sequential chains of dense layers, convolutions, batch norm, ReLU and the like, pooling and flattening"
    )


def _scaled(theta: Tensor, scale: Tensor | None) -> Tensor:
    return theta if scale is None else scaled(theta, scale)


def _convolution(name: str, layer: nn.Conv2d, shape: tuple[int, ...], scale: Tensor | None) -> float:
    """The largest norm among the groups, which are side by side."""
    rows, columns = shape[1:]
    (stride, dilation) = (_pair(layer.stride), _pair(layer.dilation))
    geometry = Geometry((rows, columns), stride, "zeros", dilation)
    added = layer._reversed_padding_repeated_twice
    reach = [(k - 1) * d for k, d in zip(reversed(layer.kernel_size), reversed(dilation), strict=True)]
    if layer.padding_mode == "circular" and [added[0] + added[1], added[2] + added[3]] == reach:
        geometry = geometry._replace(padding="circular")
    elif layer.padding_mode != "zeros" and any(added):
        raise ValueError(
            f"no certificate: {name!r} has padding_mode = {layer.padding_mode!r}, whose gain is not known; "
            "use zeros, or circular padding that keeps the image's size"
        )
    kernels = _scaled(layer.weight, scale).chunk(layer.groups)
    return max(operators.norm(kernel, geometry) for kernel in kernels)


def _pool(name: str, pool: nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d, shape: tuple[int, ...]) -> float:
    """From how many windows a pixel is in, and, for a mean, of how many pixels a window is."""
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        if _pair(pool.output_size) != (1, 1):
            raise ValueError(f"no certificate: {name!r} averages adaptively to more than 1x1; use AvgPool2d")
        return 1 / math.sqrt(shape[1] * shape[2])
    kernel, stride = _pair(pool.kernel_size), _pair(pool.stride)
    windows = math.prod(math.ceil(k / s) for k, s in zip(kernel, stride, strict=True))
    if isinstance(pool, nn.MaxPool2d):
        if _pair(pool.dilation) != (1, 1):
            raise ValueError(f"no certificate: {name!r} is a dilated pooling, whose gain is not known")
        return math.sqrt(windows)
    if pool.ceil_mode or pool.divisor_override or (any(_pair(pool.padding)) and not pool.count_include_pad):
        raise ValueError(f"no certificate: {name!r} divides by other numbers than its window's pixels")
    return math.sqrt(windows / math.prod(kernel))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
