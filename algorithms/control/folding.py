"""A batch norm after a layer scales its outputs, so a bound on the layer says nothing: the two are bounded as one.

In evaluation mode a batch norm multiplies channel c by gamma_c / sqrt(var_c + e). Folded into the layer before it, that
is diag(scale) R with R the layer's matrix. To constrain the fold is to project it and to divide the scale out again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.control.constraints import Constraint


def through(project: Callable[[Tensor], Tensor], theta: Tensor, scale: Tensor | None) -> Tensor:
    """What `project` makes of the weights times `scale`, the scale divided out; None: there is no scale.

    Rows of scale 0 say nothing to what follows; they stay as they are.
    """
    if scale is None:
        return project(theta)
    factors = _rows(scale, theta)
    folded = theta * factors
    projected = project(folded)
    if torch.equal(projected, folded):
        return theta
    divided = projected / torch.where(factors == 0, 1, factors)
    return torch.where(factors == 0, theta, divided)


def measure(constraint: Constraint, theta: Tensor, scale: Tensor | None) -> float:
    """What `constraint` measures of the weights with the scale of a batch norm after them."""
    return constraint.measure(theta if scale is None else scaled(theta, scale))


def scale_of(norm: _BatchNorm) -> Tensor:
    """By how much a batch norm multiplies each channel in evaluation mode.

    Raises ValueError for one that keeps no running statistics: it has no fixed scale.
    """
    if norm.running_var is None:
        raise ValueError(
            "a batch norm without running statistics has no scale of its own; set track_running_stats=True"
        )
    plain = (norm.running_var + norm.eps).rsqrt()
    return plain if norm.weight is None else plain * norm.weight.detach()


def scales(model: nn.Module) -> dict[str, Tensor]:
    """By name of a weight, the scale of the batch norm that follows its layer in an `nn.Sequential`."""
    found = {}
    for path, parent in model.named_modules():
        if not isinstance(parent, nn.Sequential):
            continue
        for (name, layer), (_, after) in pairwise(parent.named_children()):
            if isinstance(layer, nn.Linear | nn.Conv2d) and isinstance(after, _BatchNorm):
                found[f"{path}.{name}.weight" if path else f"{name}.weight"] = scale_of(after)
    return found


@torch.no_grad()
def enforce(model: nn.Module, constraint: Constraint) -> dict[str, float]:
    """Projects, in place, each layer that a batch norm follows, with its scale; returns what is then measured.

    An update sees the scale before its step; the batch norm's weight and statistics move in that step. This, at the end
    of a training, makes the bound hold for the model as it is.
    """
    weights, measured = dict(model.named_parameters()), {}
    for name, scale in scales(model).items():
        weights[name].copy_(through(constraint.project, weights[name], scale))
        measured[name] = measure(constraint, weights[name], scale)
    return measured


def scaled(theta: Tensor, scale: Tensor) -> Tensor:
    """The weights as they are with a batch norm's scale after them."""
    return theta * _rows(scale, theta)


def _rows(scale: Tensor, theta: Tensor) -> Tensor:
    """The scale with the axes of `theta`, one number an output."""
    return scale.to(theta.dtype).view(-1, *([1] * (theta.dim() - 1)))
