"""Shapes, types and ranges of the tensors that the algorithms exchange, named once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]  # pixels in [0, 1]
Labels = Int64[Tensor, "batch"]  # classes 0 .. classes - 1
Logits = Float[Tensor, "batch classes"]  # before the softmax
PerRow = Float[Tensor, "batch"]  # one number an example
Mask = Bool[Tensor, "batch"]  # one flag an example
Counts = Int64[Tensor, "batch"]  # one count an example
Rows = Shaped[Tensor, "batch ..."]  # anything with one entry an example


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """`values` (batch,) with the trailing axes of `like`, so that it broadcasts over its rows."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def finite(values: Tensor) -> bool:
    """Whether no value is infinite or NaN, which the extremes show in a tenth of the time of a look at each."""
    return values.numel() == 0 or bool(torch.stack(torch.aminmax(values)).isfinite().all())


def ones_where(relation: Callable[..., Tensor], left: Tensor, right: Tensor | float) -> Tensor:
    """Ones where a relation (`torch.gt`, `torch.eq` ...) holds and zeros elsewhere, with the type of `left`.

    Sums of them, products with them and `torch.lerp` by them are up to four times as quick as booleans. No gradient
    goes through.
    """
    return relation(left, right, out=torch.empty_like(left))
