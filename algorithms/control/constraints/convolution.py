"""Operator norm of a convolution at most a bound, by its frequencies (Sedghi et al. 2019, arXiv 1805.10408)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from algorithms import checks
from algorithms.control import clipping, operators
from algorithms.control.constraints import Constraint
from algorithms.control.operators import Geometry, Padding


@final
@dataclass(frozen=True, kw_only=True)
class Convolution(Constraint):
    """Bounds what a convolution does to images, not the matrix of its kernel. A matrix is clipped like any other.

    With zero padding the norm is an upper bound, a few percent above the truth (up to 16 on images of 6x6), and `size`
    may be any that is at least the layer's own; with circular padding it is exact, and `size` must be the layer's own.
    """

    bound: float = 1.0  # largest gain of an image's l2 norm
    size: tuple[int, int] = (32, 32)  # rows and columns of the layer's input
    stride: int = 1
    padding: Padding = "zeros"
    iterations: int = 20  # of Dykstra's alternation; more go nearer to the nearest kernel, and the bound holds anyway

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("bound", self.bound, 1e-6, "the largest gain of an image's l2 norm")
        for pixels in self.size:
            checks.at_least("size", pixels, 1, "rows and columns of the layer's input")
        checks.at_least("stride", self.stride, 1, "pixels between two positions of the kernel")
        checks.at_least("iterations", self.iterations, 1, "rounds of Dykstra's alternation")

    @property
    def limit(self) -> float:
        """The bound."""
        return self.bound

    def measure(self, theta: Tensor) -> float:
        """The operator norm, or the bound on it."""
        if theta.dim() == 4:
            return operators.norm(theta, self._geometry)
        return float(clipping.norm(clipping.matrix(theta)))

    def project(self, theta: Tensor) -> Tensor:
        """A kernel near the nearest one; for a matrix the nearest."""
        if theta.dim() == 4:
            return operators.project(theta, self._geometry, self.bound, self.iterations)
        return clipping.clip(clipping.matrix(theta), self.bound).reshape(theta.shape)

    @property
    def _geometry(self) -> Geometry:
        return Geometry(self.size, (self.stride, self.stride), self.padding)
