"""The method of successive approximations: maximises each layer's Hamiltonian under a stability constraint.

Paper: "Adversarially Robust Neural Networks via Optimal Control: Bridging Robustness with Lyapunov Stability"
(anonymous authors), section 4.2. Without a constraint this is SGD with learning rate 1 / (2 (alpha + beta)) and weight
decay 2 alpha; all that the method adds is the constraint.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Self, final

from torch import Tensor

from algorithms import checks
from algorithms.control.constraints import Constraint
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.constraints.unconstrained import Unconstrained
from algorithms.control.decoupling import Problem, collected, filed, of_layer
from algorithms.control.maximisation import (
    ALPHA,
    BETA,
    RATE,
    Layer,
    Terms,
    check_counts,
    maximise,
    rate_of,
    remember,
)
from algorithms.schedules import Schedule
from algorithms.schedules.constant import Constant
from algorithms.updates import Parameters, State, Update


@final
@dataclass(frozen=True, kw_only=True)
class HamiltonianMaximization(Update):
    """Moves each layer to its Hamiltonian's maximiser among the weights that its constraint allows.

    A pattern in `layers` names parameters ("block3.*", "*.bias") or a layer ("block3.conv1"); `*` also matches dots.
    Of several patterns that fit, an exact name wins, then the longest. Constraints are for weights of two axes or more;
    a bias or a batch norm's scale is constrained only where a pattern without `*` gives its full name.
    """

    learning_rate: float = 0.01  # 1 / (2 (alpha + beta)), which gives beta
    alpha: float = 0.001  # factor of the squared weights in the Hamiltonian: half of a weight decay
    beta: float | None = None  # factor of the squared step; a number here takes the place of learning_rate
    constraint: Constraint = field(default_factory=SpectralNorm)  # on each weight of two axes or more
    layers: dict[str, Layer] = field(default_factory=dict)  # what is different for layers, by pattern
    momentum: float = 0.0  # share of the running mean of products that a pass keeps; 0: none
    steps: int = 1  # maximisations a pass, each from where the one before ended, with the same product
    every: int = 1  # passes between two projections; more than 1: in between weights may leave the constraint
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("learning_rate", self.learning_rate, 0, RATE)
        checks.at_least("alpha", self.alpha, 0, ALPHA)
        if self.beta is not None:
            checks.at_least("beta", self.beta, 0, BETA)
        check_counts(self.momentum, self.steps, self.every)
        rate_of(self.alpha, self.beta, self.learning_rate)
        for pattern, layer in self.layers.items():
            try:
                self._rate(layer)
            except ValueError as error:
                raise ValueError(f"layers: {pattern!r}: {error}") from error

    def at(self, progress: float) -> Self:
        """With the learning rates that the schedule gives, for every layer, and no schedule any more."""
        factor = self.schedule.factor(progress)
        layers = {
            pattern: replace(layer, learning_rate=self._rate(layer) * factor, beta=None)
            for pattern, layer in self.layers.items()
        }
        rate = rate_of(self.alpha, self.beta, self.learning_rate) * factor
        return replace(self, learning_rate=rate, beta=None, layers=layers, schedule=Constant())

    def start(self, parameters: Parameters) -> State:
        """What each layer remembers. Raises ValueError for patterns without layers and constraints that do not suit."""
        state: State = {}
        for name, terms in self.terms(parameters).items():
            state |= filed(name, remember(terms, parameters[name].detach()))
        return state

    def step(self, parameters: Parameters, gradients: Parameters, state: State) -> tuple[Parameters, State]:
        """Each layer's maximiser. The layers are independent: any order, on any machine, gives the same bits."""
        problems = self.problems(parameters, gradients, state)
        moved = collected({name: maximise(*problem) for name, problem in problems.items()})
        return moved.parameters, moved.state

    def problems(self, parameters: Parameters, gradients: Parameters, state: State) -> dict[str, Problem]:
        """What is to be maximised for each parameter: complete, so that it can be done elsewhere."""
        return {
            name: Problem(terms, parameters[name], -gradients[name], of_layer(name, state))
            for name, terms in self.terms(parameters).items()
        }

    def terms(self, parameters: Parameters) -> dict[str, Terms]:
        """On what terms each parameter moves. Raises ValueError for a pattern that fits none."""
        for pattern in self.layers:
            if not any(_fits(pattern, name) for name in parameters):
                raise ValueError(_nothing(pattern, list(parameters)))
        return {name: self._terms(name, value) for name, value in parameters.items()}

    def _terms(self, name: str, value: Tensor) -> Terms:
        fitting = [pattern for pattern in self.layers if _fits(pattern, name)]
        pattern = max(fitting, key=lambda p: (_is_exact(p), len(p), p), default="")
        layer = self.layers.get(pattern, Layer())
        constrained = value.dim() >= 2 or (pattern == name and layer.constraint is not None)
        return Terms(
            name=name,
            alpha=_either(layer.alpha, self.alpha),
            rate=self._rate(layer),
            constraint=(layer.constraint or self.constraint) if constrained else Unconstrained(),
            momentum=_either(layer.momentum, self.momentum),
            steps=int(_either(layer.steps, self.steps)),
            every=int(_either(layer.every, self.every)),
            frozen=layer.frozen,
        )

    def _rate(self, layer: Layer) -> float:
        """The learning rate of a layer, its own where it has one."""
        alpha = _either(layer.alpha, self.alpha)
        if layer.learning_rate is not None:
            return rate_of(alpha, None, layer.learning_rate)
        return rate_of(alpha, self.beta if layer.beta is None else layer.beta, self.learning_rate)


def _either(own: float | None, common: float) -> float:
    return common if own is None else own


def _is_exact(pattern: str) -> bool:
    return not any(sign in pattern for sign in "*?[")


def _fits(pattern: str, name: str) -> bool:
    """True if the pattern names the parameter, or the layer that it belongs to."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


def _nothing(pattern: str, names: list[str]) -> str:
    layers = sorted({name.rpartition(".")[0] for name in names} | set(names))
    near = difflib.get_close_matches(pattern, layers, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"layers: no layer is called {pattern!r}; {hint}there are: {', '.join(names)}"
