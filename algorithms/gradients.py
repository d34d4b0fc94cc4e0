"""Forward passes and gradients for inputs, in whatever precision the model computes."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from algorithms.tensors import Images, Logits, PerRow


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating type that the model computes in: that of its first parameter or buffer, else float32."""
    floating = (t.dtype for t in chain(model.parameters(), model.buffers()) if t.is_floating_point())
    return next(floating, torch.float32)


def predict(model: nn.Module, x: Images) -> Logits:
    """Logits of `x`. The input is cast to the model's type and half-precision logits come back as float32.

    Raises ValueError if the model returns anything but one row of at least two logits an image.
    """
    logits = model(x.to(dtype_of(model)))
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(
            f"the model must return logits of shape ({len(x)}, classes), with 2 classes or more; got {came}"
        )
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class Evaluated(NamedTuple):
    """A point that the model has seen: its logits and the gradient there."""

    logits: Logits
    value: PerRow  # what was climbed, a row
    gradient: Images  # of the sum of `value` for the input


def differentiate(value: PerRow, x: Images, *, again: bool = False) -> Images:
    """Gradient of the sum of `value` for `x`; `again`: the graph is kept for another gradient of the same pass.

    Raises ValueError if `value` does not depend on `x` in a way that torch can differentiate.
    """
    if not value.requires_grad:
        raise ValueError(
            "the model gives no gradient for its input (an operation in it detaches or is not differentiable): "
            "use an attack without gradients, such as square, spsa or boundary"
        )
    (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=again, allow_unused=True)
    if gradient is None:
        raise ValueError("the model's output does not depend on its input: there is nothing to attack")
    return gradient


def applied(node: type[Function], *values: Any) -> Tensor:
    """What the function makes of the values, as a node of autograd's graph; torch's stub leaves it untyped."""
    result: Tensor = node.apply(*values)
    return result
