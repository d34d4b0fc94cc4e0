"""Small ODE blocks in double precision, and derivatives by differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from algorithms.ode import skew
from algorithms.ode.skew import Skew, SkewBlock
from algorithms.ode.solver import Solver, solvers

SMOOTH = Skew(activation="tanh")  # theorem mode without LeakyReLU's kinks
REFERENCE = Skew(mode="reference")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def block(
    rule: Skew = SMOOTH,
    solver: Solver | None = None,
    widths: tuple[int, int] = (3, 5),
    stride: int = 1,
    gain: float = 1.0,
) -> SkewBlock:
    """The same weights each time, `gain` times what a fresh block has: large ones take several steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = skew.block(*widths, stride, rule, solvers(solver or Solver(), None), "block").double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(gain)
    return made


def error_of_gradient(model: nn.Module, x: Tensor, directions: int = 6, size: float = 1e-6) -> float:
    """Relative distance between the gradient along random directions and central differences."""
    with torch.no_grad():
        weights = random(*model(x).shape, seed=1)

    def value(at: Tensor) -> Tensor:
        return (model(at) * weights).sum()

    along = random(directions, *x.shape, seed=2)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    expected = torch.stack([difference(value, x, size * direction) / (2 * size) for direction in along])
    given = (along * gradient).flatten(1).sum(1)
    return float((given - expected).norm() / expected.norm())


@torch.no_grad()
def difference(value: Callable[[Tensor], Tensor], x: Tensor, step: Tensor) -> Tensor:
    return value(x + step) - value(x - step)
