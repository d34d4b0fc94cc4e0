"""A convolution of pixels whose gradient for them is quick on a CPU.

Attacks differentiate for pixels in every pass. With gray images the first convolution takes a fifth to two fifths of
it: backwards, its kernel puts the channels of the *images* side by side in the processor's registers, and there is one.
The same gradient as a product and a sum of shifts,

    P = W^T g,    grad_x = sum over (i, j) of P_ij, moved by (i, j),

with W (channels of the result, channels of the images x height x width of the kernel), takes a fourth of its time.
(With three channels it takes half, of what is next to nothing in networks for colour.) The forward pass is torch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from algorithms.gradients import applied
from algorithms.tensors import Images


class Grid(NamedTuple):
    """How a kernel is laid over images."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]


@final
class PixelConv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, but for the last bits of gradients for its input. It can be differentiated again and again."""

    def forward(self, images: Images) -> Tensor:
        """The channels of the layer, (batch, channels, height, width)."""
        if not (torch.is_grad_enabled() and images.requires_grad and images.is_cpu):
            return super().forward(images)
        assert not isinstance(self.padding, str)  # see `_fits`
        return _convolve(images, self.weight, self.bias, Grid(self.stride, self.padding))


def quicken(modules: Iterable[nn.Module]) -> Sequence[nn.Module]:
    """Makes `PixelConv2d` of those among the modules that see gray images and can be one, in place; returns them."""
    found = [module for module in modules if type(module) is nn.Conv2d and _fits(module)]
    for module in found:
        module.__class__ = PixelConv2d
    return found


@contextmanager
def quickened(model: nn.Module) -> Iterator[None]:
    """Within the block the model's convolutions of gray images are quick; at its end they are torch's again.

    A model that `torch.compile` has compiled, or a part of it, keeps its own.
    """
    compiled = any(hasattr(module, "_orig_mod") for module in model.modules())
    found = [] if compiled else quicken(model.modules())
    try:
        yield
    finally:
        for module in found:
            module.__class__ = nn.Conv2d


def _fits(layer: nn.Conv2d) -> bool:
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return plain and layer.in_channels == 1 and not isinstance(layer.padding, str)


def _convolve(images: Images, weight: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
    """The gradients for weights and for images have nodes of their own, so that only what is asked for is computed."""
    found: Tensor = applied(_Weighed, weight, bias, [images], grid)
    return applied(_Joined, found, applied(_Moved, images, [weight, found], grid)) if images.requires_grad else found


class _Weighed(Function):
    """The convolution, as a function of weights. `images` stand in a list: their gradient is not this node's."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, images: list[Images], grid: Grid) -> Tensor:
        ctx.save_for_backward(weight, *images)
        ctx.grid = grid
        return functional.conv2d(images[0], weight, bias, *grid)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        weight, images = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            _for_weights(gradient, images, weight, ctx.grid) if wanted[0] else None,
            gradient.sum((0, 2, 3)) if wanted[1] else None,
            None,
            None,
        )


class _Moved(Function):
    """Nothing, in the shape of the convolution that was found, as a function of images: it has their gradient."""

    @staticmethod
    def forward(ctx: Any, images: Images, others: list[Tensor], grid: Grid) -> Tensor:
        weight, found = others
        ctx.save_for_backward(weight)
        ctx.shape, ctx.grid = images.shape, grid
        return found.new_zeros(()).expand_as(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Images, None, None]:
        (weight,) = ctx.saved_tensors
        return applied(_Spread, gradient, weight, ctx.shape, ctx.grid), None, None


class _Joined(Function):
    """The convolution that was found, without an addition of the nothing that depends on images."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, nothing: Tensor) -> Tensor:
        ctx.mark_dirty(found)  # or it counted as a view, which a ReLU in place may not change
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient


class _Spread(Function):
    """The gradient of a convolution for its images: bilinear in the gradient of its result and in the weights."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, shape: torch.Size, grid: Grid) -> Images:
        ctx.save_for_backward(gradient, weight)
        ctx.grid = grid
        rows = weight.flatten(1).t().expand(len(gradient), -1, -1)
        columns = torch.bmm(rows, gradient.flatten(2))
        summed = torch.promote_types(columns.dtype, torch.float32)  # in bfloat16 sums are neither exact nor quick
        kernel = (weight.shape[2], weight.shape[3])
        return functional.fold(columns.to(summed), shape[2:], kernel, 1, grid.padding, grid.stride).to(gradient.dtype)

    @staticmethod
    def backward(ctx: Any, change: Images) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradient, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            _convolve(change, weight, None, ctx.grid) if wanted[0] else None,
            _for_weights(gradient, change, weight, ctx.grid) if wanted[1] else None,
            None,
            None,
        )


def _for_weights(gradient: Tensor, images: Images, weight: Tensor, grid: Grid) -> Tensor:
    """The gradient of a convolution for its weights, of which only the shape counts."""
    found = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, grid.stride, grid.padding, (1, 1), False, (0, 0), 1, (False, True, False)
    )
    weights: Tensor = found[1]
    return weights
