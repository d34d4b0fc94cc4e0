"""Operator norm in l-infinity at most a bound: the largest sum of a row's absolute values (Gouk et al. 2021).

"Regularisation of neural networks by enforcing Lipschitz continuity", https://arxiv.org/abs/1804.04368, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from algorithms import balls, checks
from algorithms.control import clipping
from algorithms.control.constraints import Constraint


@final
@dataclass(frozen=True, kw_only=True)
class RowSum(Constraint):
    """Each output moves by at most the bound times the largest move of an input: each row in an l1 ball.

    That of a kernel is that of its convolution, whatever its stride and (zero or circular) padding. Rows become sparse.
    """

    bound: float = 1.0  # largest sum of absolute values in a row

    def __post_init__(self) -> None:
        """Raises ValueError for a bound that leaves no weights."""
        checks.at_least("bound", self.bound, 1e-6, "the largest sum of a row's absolute values")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def measure(self, theta: Tensor) -> float:
        """The largest sum."""
        return float(clipping.matrix(theta.detach()).double().abs().sum(1).max())

    def project(self, theta: Tensor) -> Tensor:
        """Entries nearer to 0 by the same amount, or 0, in each row whose sum is too large."""
        if self.measure(theta) <= self.bound:
            return theta
        rows = clipping.matrix(theta).double()
        cut = self.bound * (1 - torch.finfo(theta.dtype).eps)
        return balls.project(rows, "l1", cut).to(theta.dtype).reshape(theta.shape)
