"""The maximisation of one layer's Hamiltonian: a pure function of that layer alone, so that all layers go in parallel.

A layer that is linear in its weights has H(theta) = <P, theta>, with P the sum of states times co-states, which is
minus the loss's gradient. In the paper's problem, max <P, theta> - alpha |theta|^2 - beta |theta - theta'|^2 over a
convex set, the quadratic is isotropic. So the maximiser is the set's point nearest to the free maximiser
theta' + (P - 2 alpha theta') / (2 (alpha + beta)), which is a step of gradient descent with weight decay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from torch import Tensor

from algorithms import checks, descent
from algorithms.control import folding
from algorithms.control.constraints import Constraint, SolverError

Memory = dict[str, Tensor]  # what one layer remembers: its mean product, counts, and the scale of a batch norm after it


@final
@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is different for the layers that a pattern names. What is left out is as for all."""

    learning_rate: float | None = None
    alpha: float | None = None
    beta: float | None = None
    constraint: Constraint | None = None  # "unconstrained" frees a layer
    momentum: float | None = None
    steps: int | None = None
    every: int | None = None
    frozen: bool = False  # true: these parameters never move

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense by themselves."""
        if self.learning_rate is not None and self.beta is not None:
            raise ValueError("beta: either beta or learning_rate, not both: 2 (alpha + beta) = 1 / learning_rate")
        for field, what in (("learning_rate", RATE), ("alpha", ALPHA), ("beta", BETA)):
            if getattr(self, field) is not None:
                checks.at_least(field, getattr(self, field), 0, what)
        check_counts(self.momentum, self.steps, self.every)


RATE = "a step's length along the gradient"
ALPHA = "the factor of the squared weights"
BETA = "the factor of the squared step"


@final
@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms one layer's Hamiltonian is maximised."""

    name: str  # of the parameter, for errors and notes
    alpha: float  # factor of the squared weights
    rate: float  # 1 / (2 (alpha + beta)); 0: beta is infinite, and only the constraint moves the weights
    constraint: Constraint
    momentum: float = 0.0
    steps: int = 1
    every: int = 1
    frozen: bool = False

    def still(self) -> Terms:
        """Terms on which only the constraint moves the weights."""
        return replace(self, rate=0.0, momentum=0.0, steps=1, every=1)


class Maximised(NamedTuple):
    """What the maximisation of one layer gives."""

    theta: Tensor
    memory: Memory
    note: str  # what the user should know: a solver that failed; empty if there is nothing


def rate_of(alpha: float, beta: float | None, learning_rate: float) -> float:
    """1 / (2 (alpha + beta)), where beta may be left to the learning rate.

    Raises ValueError where the Hamiltonian has no maximum (alpha + beta = 0) or beta would be negative.
    """
    if beta is None:
        if 2 * alpha * learning_rate > 1:
            raise ValueError(
                f"learning_rate: at most 1 / (2 alpha) = {1 / (2 * alpha):g}, as beta would be negative, "
                f"not {learning_rate:g}; lower it, or alpha"
            )
        return learning_rate
    if alpha + beta <= 0:
        raise ValueError(
            "beta: alpha + beta more than 0, as the Hamiltonian has no maximum without; set beta = 50, say"
        )
    return 1 / (2 * (alpha + beta))


def check_counts(momentum: float | None, steps: int | None, every: int | None) -> None:
    """Raises ValueError for numbers that make no sense; None is one that is left out."""
    if momentum is not None:
        descent.check_kept("momentum", momentum, "the share of the mean product that a pass keeps")
    if steps is not None:
        checks.at_least("steps", steps, 1, "maximisations a pass")
    if every is not None:
        checks.at_least("every", every, 1, "passes between two projections")


def remember(terms: Terms, theta: Tensor) -> Memory:
    """What a layer remembers before the first pass. Raises ValueError if the constraint does not suit its shape."""
    if terms.frozen:
        return {}
    try:
        terms.constraint.measure(theta)
    except ValueError as error:
        raise ValueError(_unsuitable(terms, error)) from error
    counted = terms.momentum > 0 or terms.every > 1
    mean = {"product": torch.zeros_like(theta)} if terms.momentum > 0 else {}
    return {"seen": torch.zeros((), dtype=torch.int64), **mean} if counted else {}


@torch.no_grad()
def maximise(terms: Terms, theta: Tensor, product: Tensor, memory: Memory) -> Maximised:
    """The weights that maximise the Hamiltonian of a layer, now `theta`, with product P. Nothing changes in place.

    Raises FloatingPointError for numbers that are not finite, ValueError for weights that the constraint cannot take.
    """
    if terms.frozen:
        return Maximised(theta.clone(), memory, "")
    _check_finite(product, terms, "the product of states and co-states")
    product, memory = _average(terms, product, memory)
    note, due = "", "seen" not in memory or int(memory["seen"]) % terms.every == 0
    for _ in range(terms.steps):
        theta = theta.add(product.add(theta, alpha=-2 * terms.alpha), alpha=terms.rate)
        _check_finite(theta, terms, "the maximiser of the Hamiltonian")
        if due:
            theta, note = _project(terms, theta, memory.get("scale"))
    if note:
        memory = memory | {"fallbacks": memory.get("fallbacks", torch.zeros((), dtype=torch.int64)) + 1}
    return Maximised(theta, memory, note)


def _average(terms: Terms, product: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """The mean of the products so far, without bias, where there is momentum; and what is remembered."""
    if "seen" not in memory:
        return product, memory
    memory = memory | {"seen": memory["seen"] + 1}
    if terms.momentum == 0:
        return product, memory
    mean = torch.lerp(memory["product"], product, 1 - terms.momentum)
    return mean / (1 - terms.momentum ** int(memory["seen"])), memory | {"product": mean}


def _project(terms: Terms, theta: Tensor, scale: Tensor | None) -> tuple[Tensor, str]:
    """The nearest weights that the constraint allows, and a note if they are not its solver's but the closed form's."""
    constraint = terms.constraint.under(1 / (2 * terms.rate) if terms.rate else math.inf)
    try:
        try:
            return folding.through(constraint.project, theta, scale), ""
        except SolverError as error:
            note = f"{terms.name}: {error}; took the closed form"
            return folding.through(constraint.closed_form, theta, scale), note
    except ValueError as error:
        raise ValueError(_unsuitable(terms, error)) from error
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise FloatingPointError(f"{terms.name}: the projection is singular: {error}; lower learning_rate") from error


def _unsuitable(terms: Terms, error: ValueError) -> str:
    kind = type(terms.constraint).__name__
    return f"{terms.name}: the constraint {kind} needs {error}; give this layer another one in [update.layers]"


def _check_finite(values: Tensor, terms: Terms, what: str) -> None:
    finite = torch.isfinite(values)
    if not finite.all():
        wrong = int(finite.numel() - finite.sum())
        raise FloatingPointError(
            f"{terms.name}: {what} is NaN or infinite in {wrong} of {values.numel()} entries; lower learning_rate"
        )
