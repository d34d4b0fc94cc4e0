"""What updates share: clipping, weight decay, Adam's moments and the checks of their fields.

Every function takes and returns dictionaries of tensors, changes none in place, and works on all tensors in a few
kernel launches. Operation by operation this is what `torch.optim` does, so the results are the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from algorithms import checks
from algorithms.updates import Parameters


def check(learning_rate: float, weight_decay: float, clip_norm: float) -> None:
    """Raises ValueError for numbers, common to all updates, that make no sense."""
    checks.at_least("learning_rate", learning_rate, 0, "a step's length along the gradient")
    checks.at_least("weight_decay", weight_decay, 0, "a factor on the weights")
    checks.at_least("clip_norm", clip_norm, 0, "the largest l2 norm of all gradients together, 0 for none")


def check_kept(field: str, value: float, what: str) -> None:
    """Raises ValueError unless `value`, the share that a running sum or mean keeps, is in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{field}: {what}, at least 0 and less than 1, not {value:g}")


def clip(gradients: Parameters, norm: float) -> Parameters:
    """The gradients, shrunk together where their common l2 norm exceeds `norm`; 0: as they are."""
    if norm == 0:
        return gradients
    total = get_total_norm(list(gradients.values()))
    factor = (norm / (total + 1e-6)).clamp(max=1)
    return named(gradients, torch._foreach_mul(list(gradients.values()), factor))


def decaying(parameters: Parameters, *, every: bool) -> list[str]:
    """The parameters that weight decay shrinks: `every` one, or those of two axes or more (no bias, no batch norm)."""
    return [name for name, value in parameters.items() if every or value.dim() >= 2]


def penalise(gradients: Parameters, parameters: Parameters, decay: float, *, every: bool) -> Parameters:
    """The gradients of the loss and of half of `decay` times the sum of squares of the parameters that decay."""
    names = decaying(parameters, every=every)
    if decay == 0 or not names:
        return gradients
    penalised = torch._foreach_add(pick(gradients, names), pick(parameters, names), alpha=decay)
    return gradients | dict(zip(names, penalised, strict=True))


def shrink(parameters: Parameters, share: float, *, every: bool) -> Parameters:
    """The parameters, those that decay smaller by `share`."""
    names = decaying(parameters, every=every)
    if share == 0 or not names:
        return parameters
    return parameters | dict(zip(names, torch._foreach_mul(pick(parameters, names), 1 - share), strict=True))


def pick(tensors: Parameters, names: list[str]) -> list[Tensor]:
    """The tensors of these names, in this order."""
    return [tensors[name] for name in names]


def named(like: Parameters, values: list[Tensor] | tuple[Tensor, ...]) -> Parameters:
    """`values` under the names of `like`."""
    return dict(zip(like, values, strict=True))
