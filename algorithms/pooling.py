"""Max-pooling for networks that learn from the gradients of their input, on a CPU.

The gradient of a max-pooling places values where a window was largest; the derivative of that picks values there, and
has none for the pooling's input. torch hands zeros of that input's size back instead, in another order of memory: they
are added, and what follows copies. (First derivatives are torch's.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.autograd import Function

from algorithms.gradients import applied


class Windows(NamedTuple):
    """How windows are laid over images, in the order of torch's operations."""

    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: bool


@final
class PickingMaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d`. It can be differentiated again and again."""

    def forward(self, values: Tensor) -> Tensor:
        """The largest of each window, (batch, channels, height, width)."""
        if not (torch.is_grad_enabled() and values.requires_grad and values.is_cpu):
            found: Tensor = super().forward(values)
            return found
        return applied(_Largest, values, Windows(*(getattr(self, name) for name in Windows._fields)))


def quicken(modules: Iterable[nn.Module]) -> None:
    """Makes `PickingMaxPool2d` of the max-poolings among the modules, in place."""
    for module in modules:
        if type(module) is nn.MaxPool2d and not module.return_indices:
            module.__class__ = PickingMaxPool2d


class _Largest(Function):
    """The largest of each window."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, windows: Windows) -> Tensor:
        largest, places = torch.ops.aten.max_pool2d_with_indices(values, *_pairs(windows))
        ctx.save_for_backward(values, places)
        ctx.windows = windows
        found: Tensor = largest
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        values, places = ctx.saved_tensors
        return applied(_Placed, gradient, places, values.detach(), ctx.windows), None


class _Placed(Function):
    """Values where each window was largest, as large as `like`, and zero elsewhere: linear in the values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, like: Tensor, windows: Windows) -> Tensor:
        ctx.save_for_backward(places, like)
        ctx.windows = windows
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(values, like, *_pairs(windows), places)
        return found

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor, None, None, None]:
        return applied(_Picked, change, *ctx.saved_tensors, ctx.windows), None, None, None


class _Picked(Function):
    """The value where each window was largest: linear in the values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, like: Tensor, windows: Windows) -> Tensor:
        ctx.save_for_backward(places, like)
        ctx.windows = windows
        return values.flatten(-2).gather(-1, places.flatten(-2)).view_as(places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return applied(_Placed, gradient, *ctx.saved_tensors, ctx.windows), None, None, None


def _pairs(windows: Windows) -> list[Any]:
    """Numbers for height and width alike are written out, as the operations below the layers want them."""
    return [[size, size] if type(size) is int else size for size in windows]
