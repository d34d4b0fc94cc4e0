"""Label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7) for a loss written without it.

It belongs to the cross-entropy and not to any defense: within the block every call of torch's cross-entropy gives a
share of each label to all classes alike, so that each defense learns from smoothed labels and none has to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

from torch.nn import functional
from torch.overrides import TorchFunctionMode


@final
class _Smoothing(TorchFunctionMode):
    """Gives torch's cross-entropy its `label_smoothing`, and counts how often it met one."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.met = share, 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is functional.cross_entropy:
            self.met += 1
            given = {**given, "label_smoothing": self.share}
        return func(*args, **given)


@contextmanager
def smoothed(share: float) -> Iterator[None]:
    """Within the block cross-entropies are with labels smoothed by `share`; 0: nothing is changed.

    Raises ValueError at the end of a block in which no cross-entropy was taken.
    """
    if share == 0:
        yield
        return
    with _Smoothing(share) as smoothing:
        yield
    if not smoothing.met:
        raise ValueError(
            "label_smoothing: 0 for a defense whose loss has no cross-entropy; "
            'that of margin has one with fit = "cross_entropy"'
        )
