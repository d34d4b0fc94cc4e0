"""A batch norm after a layer scales its outputs, so a bound on the layer says nothing: the two are bounded as one.

In evaluation mode a batch norm multiplies channel c by gamma_c / sqrt(var_c + e). Folded into the layer before it, that
is diag(scale) R with R the layer's matrix. To constrain the fold is to project it and to divide the scale out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.batch_norm import plain_scale, rows, scale_of, scaled
from algorithms.control.constraints import Constraint


def through(project: Callable[[Tensor], Tensor], theta: Tensor, scale: Tensor | None) -> Tensor:
    """What `project` makes of the weights times `scale`, the scale divided out; None: there is no scale.

    Rows of scale 0 say nothing to what follows; they stay as they are.
    """
    if scale is None:
        return project(theta)
    factors = rows(scale, theta)
    folded = theta * factors
    projected = project(folded)
    if torch.equal(projected, folded):
        return theta
    divided = projected / torch.where(factors == 0, 1, factors)
    return torch.where(factors == 0, theta, divided)


def measure(constraint: Constraint, theta: Tensor, scale: Tensor | None) -> float:
    """What `constraint` measures of the weights with the scale of a batch norm after them."""
    return constraint.measure(theta if scale is None else scaled(theta, scale))


class Follower(NamedTuple):
    """The batch norm that scales a weight's outputs, or a batch norm's own weight: by `plain` times `weight`."""

    plain: Tensor  # 1 / sqrt(var + e), one number a channel
    weight: str | None  # the name of the factor that the batch norm learns; None: there is none, or it is the weight


def followers(model: nn.Module) -> dict[str, Follower]:
    """By name of a weight, the batch norm that scales it as the model is now: those of layers, and their own."""
    found = {}
    for path, norm in model.named_modules():
        if isinstance(norm, _BatchNorm) and norm.weight is not None and norm.running_var is not None:
            found[_inside(path, "weight")] = Follower(plain_scale(norm), None)
    for name, path, norm in _pairs(model):
        own = None if norm.weight is None else _inside(path, "weight")
        found[name] = Follower(plain_scale(norm), own)
    return found


def scales(model: nn.Module) -> dict[str, Tensor]:
    """By name of a weight, the scale of the batch norm that follows its layer in an `nn.Sequential`."""
    return {name: scale_of(norm) for name, _, norm in _pairs(model)}


def _pairs(model: nn.Module) -> Iterator[tuple[str, str, _BatchNorm]]:
    """The name of each weight that a batch norm follows in an `nn.Sequential`; that batch norm's path, and itself."""
    for path, parent in model.named_modules():
        if not isinstance(parent, nn.Sequential):
            continue
        for (name, layer), (after, norm) in pairwise(parent.named_children()):
            if isinstance(layer, nn.Linear | nn.Conv2d) and isinstance(norm, _BatchNorm):
                yield _inside(path, f"{name}.weight"), _inside(path, after), norm


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
