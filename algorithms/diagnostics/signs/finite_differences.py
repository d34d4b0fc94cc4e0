"""The gradient is not that of the function: it differs from central differences (in double precision).

Adaptive solvers of neural ODEs are such a case: their step sizes depend on the input, and automatic differentiation
takes them as constants. A backward pass that was written by hand is another one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from algorithms import checks, losses
from algorithms.diagnostics.signs import Columns, Scene, Sign, nearby
from algorithms.gradients import differentiate, predict


@final
@dataclass(frozen=True, kw_only=True)
class FiniteDifferences(Sign):
    """Examples, one at a time, where derivatives along random directions differ from the gradient's."""

    honest: ClassVar[str] = "agreement to a small fraction of a percent"
    slack: float = 0.05
    directions: int = 8
    size: float = 1e-6  # of a step along each axis, in pixel units
    wrong: float = 0.05  # relative error from which a gradient is called wrong

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("directions", self.directions, 1, "a number of directions")
        checks.between("size", self.size, 1e-9, 0.1, "a length in pixel units")
        checks.between("wrong", self.wrong, 0, 1, "a relative error")

    def applies(self, model: nn.Module) -> bool:
        """Every model."""
        return True

    def measure(self, scene: Scene) -> Columns:
        """`error`: distance of the derivatives relative to the differences; 0 where both are nothing."""
        precise = copy.deepcopy(scene.model).double()
        points = nearby(scene._replace(x=scene.x.double()))
        error = torch.stack([self._error(precise, scene, points, row) for row in range(len(points))])
        return {"shows": error > self.wrong, "error": error}

    def _error(self, model: nn.Module, scene: Scene, points: Tensor, row: int) -> Tensor:
        """Of one example, which sees no other one beside it."""
        x, y = points[row : row + 1], scene.y[row : row + 1]
        shape = (self.directions, *x.shape[1:])
        along = scene.streams.select(torch.tensor([row], device=x.device)).signs(shape, 1, dtype=x.dtype)[0]

        def value(at: Tensor) -> Tensor:
            return losses.margin(predict(model, at), y)

        given = (along * gradient_of(value, x)).flatten(1).sum(1)
        return relative(given, differences(value, x, along, self.size))

    def summary(self, columns: Columns) -> str:
        """Median and largest error."""
        error = columns["error"]
        return f"relative error {error.median():.1e} in the median, {error.max():.1e} at most"


def gradient_of(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What automatic differentiation says."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        return differentiate(value(x), x)


@torch.no_grad()
def differences(value: Callable[[Tensor], Tensor], x: Tensor, along: Tensor, size: float) -> Tensor:
    """Central differences of `value` at the one row of `x`, for each direction."""
    steps = size * along.unsqueeze(1)
    return torch.cat([(value(x + step) - value(x - step)) / (2 * size) for step in steps])


def relative(given: Tensor, expected: Tensor) -> Tensor:
    """Distance in units of what is expected; infinite where nothing is expected, and 0 where nothing is given too."""
    apart = (given - expected).norm()
    return torch.where(apart > 0, apart / expected.norm(), torch.zeros_like(apart))
