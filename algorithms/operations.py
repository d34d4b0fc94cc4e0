"""What a computation costs, counted in floating-point operations: not a time, so that it is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@final
class Counter(TorchDispatchMode):
    """Adds up what passes by, by torch's own formulas.

    Not torch's `FlopCounterMode`, which also tells modules apart and for that cannot see gradients of gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: float = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation and counts it."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=found)
        return found


def operations(compute: Callable[[], object]) -> float:
    """Floating-point operations of `compute()` in products of matrices and convolutions, and in derivatives of those.

    Derivatives of any order count; what is done element by element does not.
    """
    counter = Counter()
    with counter:
        compute()
    return counter.total
