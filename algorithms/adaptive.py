"""Adam's running means of gradients and of their squares, and the step along them (Kingma and Ba 2015, algorithm 1).

The paper: https://arxiv.org/abs/1412.6980. The state is flat: `step` counts on the CPU, so that reading it never waits
for a device; `mean/NAME` and `square/NAME` have the shape of parameter NAME.
"""

from __future__ import annotations

import torch

from algorithms import checks, descent
from algorithms.updates import Parameters, State

Betas = tuple[float, float]  # shares that the running means of gradients and of their squares keep at a step


def check(betas: Betas, epsilon: float) -> None:
    """Raises ValueError for numbers that make no sense."""
    for beta, what in zip(betas, ("gradients", "squared gradients"), strict=True):
        descent.check_kept("betas", beta, f"the share of the running mean of {what} that a step keeps")
    checks.at_least("epsilon", epsilon, 0, "what is added to the root of the mean square")


def start(parameters: Parameters) -> State:
    """No step made, and means of zero."""
    means = {f"mean/{name}": torch.zeros_like(value) for name, value in parameters.items()}
    squares = {f"square/{name}": torch.zeros_like(value) for name, value in parameters.items()}
    return {"step": torch.zeros((), dtype=torch.int64), **means, **squares}


def follow(gradients: Parameters, state: State, betas: Betas) -> State:
    """The state after seeing `gradients`."""
    seen = list(gradients.values())
    means = torch._foreach_lerp(descent.pick(state, [f"mean/{name}" for name in gradients]), seen, 1 - betas[0])
    kept = torch._foreach_mul(descent.pick(state, [f"square/{name}" for name in gradients]), betas[1])
    squares = torch._foreach_addcmul(kept, seen, seen, value=1 - betas[1])
    return {
        "step": state["step"] + 1,
        **{f"mean/{name}": value for name, value in zip(gradients, means, strict=True)},
        **{f"square/{name}": value for name, value in zip(gradients, squares, strict=True)},
    }


def move(parameters: Parameters, state: State, learning_rate: float, betas: Betas, epsilon: float) -> Parameters:
    """The parameters after a step along the means, each entry scaled by its root mean square; both without bias."""
    count = int(state["step"])
    means = descent.pick(state, [f"mean/{name}" for name in parameters])
    squares = descent.pick(state, [f"square/{name}" for name in parameters])
    roots = torch._foreach_div(torch._foreach_sqrt(squares), (1 - betas[1] ** count) ** 0.5)
    scales = torch._foreach_add(roots, epsilon)
    length = learning_rate / (1 - betas[0] ** count)
    return descent.named(parameters, torch._foreach_addcdiv(list(parameters.values()), means, scales, value=-length))
