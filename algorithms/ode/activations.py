"""Strictly increasing activations that are 0 at 0: what the stability theorem asks for."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional

Activation = Literal["leaky_relu", "tanh"]

LEAK = 0.01  # the slope of LeakyReLU below 0


def activate(name: Activation, u: Tensor) -> Tensor:
    """sigma(u)."""
    return u.tanh() if name == "tanh" else functional.leaky_relu(u, LEAK)


def slope(name: Activation, u: Tensor) -> Tensor:
    """sigma'(u)."""
    if name == "tanh":
        return 1 - u.tanh().square()
    return u.new_ones(()).where(u > 0, u.new_full((), LEAK))


def integral(name: Activation, u: Tensor) -> Tensor:
    """The integral of sigma from 0 to u."""
    if name == "tanh":
        return u.abs() + functional.softplus(-2 * u.abs()) - math.log(2)  # log cosh u, without its overflow
    return 0.5 * u * functional.leaky_relu(u, LEAK)
