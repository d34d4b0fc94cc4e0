"""Is an ODE block stable? Eigenvalues along a trajectory, the Lyapunov function's balance, growth of a disturbance.

For d y/dt = sigma(M y) with M's symmetric part -gamma I and F the integral of sigma, V(y) = sum of F(M y) obeys
dV/dt = -gamma ||sigma(M y)||^2: with gamma > 0 every trajectory ends in the origin. The criterion of Huang et al. 2021
(https://proceedings.mlr.press/v145/huang22a.html) is that all eigenvalues of the Jacobian have negative real parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from algorithms.modes import frozen
from algorithms.ode.activations import activate, integral
from algorithms.ode.exact import flatten
from algorithms.ode.flow import Flow, integrate
from algorithms.ode.skew import SkewField
from algorithms.ode.solver import Solver
from algorithms.ode.views import flows
from algorithms.ode.watch import State, Watch
from algorithms.tensors import Images, PerRow

LARGEST = 4096  # numbers in the state of which all eigenvalues are computed


def starts(model: nn.Module, x: Images) -> list[tuple[Flow, State]]:
    """Each ODE block of a network with the state in which it starts for the images `x`."""
    found: list[tuple[Flow, State]] = []

    def note(flow: nn.Module, state: State) -> None:
        assert isinstance(flow, Flow)
        found.append((flow, tuple(part.detach() for part in state)))

    hooks = [flow.register_forward_pre_hook(note) for flow in flows(model)]
    try:
        with frozen(model), torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class Trajectory(NamedTuple):
    """States at equal distances in time."""

    times: list[float]
    states: list[State]


@torch.no_grad()
def trajectory(field: nn.Module, state: State, end: float = 1.0, steps: int = 10, fine: int = 10) -> Trajectory:
    """The solution at `steps` + 1 times from 0 to `end`, by `fine` fixed steps of RK4 between two of them."""
    size, states = end / steps, [state]
    for place in range(steps):
        states.append(advance(field, states[-1], place * size, size, fine))
    return Trajectory([place * size for place in range(steps + 1)], states)


def advance(field: nn.Module, state: State, begin: float, size: float, fine: int) -> State:
    """The state at `begin` + `size`: the equation runs in a time that is scaled to go from 0 to 1."""

    def scaled(t: Tensor, y: State) -> State:
        rates: State = field(begin + size * t, y)
        return tuple(size * rate for rate in rates)

    return integrate(Watch(scaled, Solver(method="rk4", steps=fine), "trajectory"), state)


def jacobian(field: nn.Module, state: State, time: float = 0.0) -> Tensor:
    """The matrix of d rate / d state for one row.

    Raises ValueError for several rows, and for a state of so many numbers that the matrix is too large.
    """
    count = sum(part.numel() for part in state)
    if len(state[0]) != 1:
        raise ValueError(f"jacobian: the state of one image, not of {len(state[0])}; take a row")
    if count > LARGEST:
        raise ValueError(
            f"jacobian: a state of {LARGEST} numbers or fewer, not {count}; take a smaller image or fewer channels"
        )
    shapes = [part.shape for part in state]
    time_ = state[0].new_tensor(time)

    def rate(flat: Tensor) -> Tensor:
        pieces = flat.split([shape.numel() for shape in shapes])
        rates: State = field(time_, tuple(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)))
        return flatten(rates)

    matrix: Tensor = torch.autograd.functional.jacobian(rate, flatten(state).detach(), vectorize=True)
    return matrix


def eigenvalues(field: nn.Module, state: State, time: float = 0.0) -> Tensor:
    """Those of the Jacobian for one row, complex. Raises ValueError as `jacobian` does."""
    values: Tensor = torch.linalg.eigvals(jacobian(field, state, time))
    return values


def abscissas(field: nn.Module, path: Trajectory) -> list[float]:
    """The largest real part of the Jacobian's eigenvalues at each point of one row's path: below 0 where stable."""
    return [
        float(eigenvalues(field, state, time).real.max()) for time, state in zip(path.times, path.states, strict=True)
    ]


def lyapunov(field: SkewField, state: State) -> PerRow:
    """V of each row. Raises ValueError in reference mode, which has no such function."""
    if field.rule.mode != "theorem":
        raise ValueError("lyapunov: a block in theorem mode; group norm (reference mode) leaves no such function")
    return sum_rows(tuple(integral(field.rule.activation, part) for part in field.linear(state)))


def dissipation(field: SkewField, state: State) -> PerRow:
    """-gamma ||sigma(M y)||^2 of each row: what dV/dt must be."""
    active = tuple(activate(field.rule.activation, part).square() for part in field.linear(state))
    return -field.rule.gamma * sum_rows(active)


def sum_rows(parts: State) -> PerRow:
    """The sum of all numbers of a row."""
    return torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)


class Balance(NamedTuple):
    """The Lyapunov function's account of a trajectory, a number a row; `end` is `start` + `dissipated`."""

    start: PerRow  # V at time 0
    end: PerRow  # V at the end
    dissipated: PerRow  # the integral of -gamma ||sigma(M y)||^2

    @property
    def gap(self) -> PerRow:
        """How far the account is from closing, relative to V at time 0."""
        return (self.end - self.start - self.dissipated).abs() / self.start


@torch.no_grad()
def balance(field: SkewField, state: State, end: float = 1.0, steps: int = 1000) -> Balance:
    """Follows trajectory and dissipation together, by fixed steps of RK4. Raises ValueError as `lyapunov` does."""
    begin = lyapunov(field, state)

    def rate(t: Tensor, y: State) -> State:
        inner: State = field(t, y[:-1])
        return tuple(end * part for part in (*inner, dissipation(field, y[:-1])))

    *last, dissipated = integrate(
        Watch(rate, Solver(method="rk4", steps=steps), "balance"), (*state, torch.zeros_like(begin))
    )
    return Balance(begin, lyapunov(field, tuple(last)), dissipated)


def growth(field: nn.Module, state: State, disturbed: State, end: float = 1.0, steps: int = 10) -> Tensor:
    """The distance between two trajectories in units of the first one, (times, batch), from time 0 to `end`."""
    pairs = zip(
        trajectory(field, state, end, steps).states, trajectory(field, disturbed, end, steps).states, strict=True
    )
    distances = torch.stack([distance(one, other) for one, other in pairs])
    return distances / distances[0]


def distance(one: State, other: State) -> PerRow:
    """The Euclidean distance of each row."""
    return sum_rows(tuple((a - b).square() for a, b in zip(one, other, strict=True))).sqrt()
