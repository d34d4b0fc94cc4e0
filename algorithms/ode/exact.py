"""Adaptive Runge-Kutta steps that are differentiated entirely: through the step sizes too, which follow the error.

torchdiffeq takes the next step's size as a constant. The value at the end depends on it nevertheless, so its gradient
is not that of the function which it computes: the relative error is between 0.1 and 0.9 at the published tolerances.
Here values are torchdiffeq's, and gradients are those of the values.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, final

import torch
from torch import Tensor

from algorithms.ode.tableaus import TABLEAUS, Tableau
from algorithms.ode.watch import END, State, Watch

SAFETY, GROWTH, SHRINKAGE = 0.9, 10.0, 0.2  # of the law of step sizes, Hairer, Norsett and Wanner 1993, II.4
TINY = 1e-6  # a first step where nothing is known


class Step(NamedTuple):
    """A Runge-Kutta step, accepted or not."""

    before: Tensor  # the state at its start
    after: Tensor
    rates: list[Tensor]  # the derivative at each stage; the last one is that at the step's end
    size: Tensor


@final
class Problem:
    """The field on flat vectors, and the size of an error in units of the tolerance."""

    def __init__(self, watch: Watch, state: State) -> None:
        self.watch, self.shapes = watch, [part.shape for part in state]
        self.borders = [0, *torch.tensor([shape.numel() for shape in self.shapes]).cumsum(0).tolist()]

    def parts(self, flat: Tensor) -> list[Tensor]:
        """The pieces of a flat vector, one for each part of the state."""
        return [flat[low:high] for low, high in pairwise(self.borders)]

    def unflatten(self, flat: Tensor) -> State:
        """The state that a flat vector stands for."""
        return tuple(part.view(shape) for part, shape in zip(self.parts(flat), self.shapes, strict=True))

    def rate(self, t: Tensor, y: Tensor) -> Tensor:
        """The field."""
        return flatten(self.watch(t.to(y.dtype), self.unflatten(y)))

    def scale(self, *states: Tensor) -> Tensor:
        """What counts as one error, coordinate by coordinate."""
        tolerance, largest = self.watch.solver.tolerance, states[0].abs()
        for state in states[1:]:
            largest = torch.maximum(largest, state.abs())
        return tolerance + tolerance * largest

    def size(self, flat: Tensor) -> Tensor:
        """The largest root mean square among the parts."""
        sizes = [part.square().mean() for part in self.parts(flat)]
        largest = max(sizes, key=Tensor.item)
        return largest.sqrt() if largest > 0 else largest  # the root has no gradient at 0


def flatten(state: State) -> Tensor:
    """One vector of all parts."""
    return torch.cat([part.reshape(-1) for part in state])


def integrate(watch: Watch, state: State) -> State:
    """The state at the end, with the method and tolerance of `watch.solver`. Raises Unfinished as `watch` does."""
    problem, tableau = Problem(watch, state), TABLEAUS[watch.solver.method]
    y = flatten(state)
    t = torch.zeros((), dtype=torch.float64, device=y.device)
    rate = problem.rate(t, y)
    size = first_size(problem, y, rate, tableau.order)
    while True:
        size = size if bool(torch.isfinite(size)) else torch.zeros_like(size)
        watch.callback_step(t, problem.unflatten(y), size)
        step = attempt(problem, tableau, t, y, rate, size)
        error = problem.size(weighted(step.rates, tableau.error, size) / problem.scale(y, step.after))
        if error <= 1:
            if t + size >= END:
                return problem.unflatten(between(step, tableau, (END - t) / size))
            t, y, rate = t + size, step.after, step.rates[-1]
        size = next_size(size, error.double(), tableau.order)


def weighted(rates: list[Tensor], weights: tuple[float, ...], size: Tensor) -> Tensor:
    """The step's size times a weighted sum of derivatives."""
    total = torch.zeros_like(rates[0])
    for rate, weight in zip(rates, weights, strict=True):
        if weight:
            total = total + weight * rate
    return size.to(total.dtype) * total


def attempt(problem: Problem, tableau: Tableau, t: Tensor, y: Tensor, rate: Tensor, size: Tensor) -> Step:
    """One step of `size` from `y` at time `t`, where the derivative is `rate`."""
    rates = [rate]
    for time, weights in zip(tableau.times, tableau.stages, strict=True):
        rates.append(problem.rate(t + time * size, y + weighted(rates, weights, size)))
    return Step(y, y + weighted(rates, tableau.solution, size), rates, size)


def between(step: Step, tableau: Tableau, place: Tensor) -> Tensor:
    """The quartic through the step's ends and middle, at `place` between 0 and 1."""
    start, end, place = step.before, step.after, place.to(step.before.dtype)
    middle = start + weighted(step.rates, tableau.middle, step.size)
    size = step.size.to(start.dtype)
    first, last = size * step.rates[0], size * step.rates[-1]
    fourth = 2 * (last - first) - 8 * (end + start) + 16 * middle
    third = 5 * first - 3 * last + 18 * start + 14 * end - 32 * middle
    second = last - 4 * first - 11 * start - 5 * end + 16 * middle
    return start + place * (first + place * (second + place * (third + place * fourth)))


def next_size(size: Tensor, error: Tensor, order: int) -> Tensor:
    """The law of step sizes: what would make the next error as large as the tolerance, with a margin."""
    if error == 0:
        return size * GROWTH
    least = 1.0 if error < 1 else SHRINKAGE
    return size * (SAFETY / error ** (1 / order)).clamp(least, GROWTH)


def first_size(problem: Problem, y: Tensor, rate: Tensor, order: int) -> Tensor:
    """The first step: Hairer, Norsett and Wanner 1993, II.4."""
    scale = problem.scale(y)
    level, slope = problem.size(y / scale), problem.size(rate / scale)
    trial = torch.full_like(level, TINY) if level < 1e-5 or slope < 1e-5 else 0.01 * level / slope
    bend = problem.size((problem.rate(trial, y + trial * rate) - rate) / scale) / trial
    if slope <= 1e-15 and bend <= 1e-15:
        size = torch.maximum(torch.full_like(trial, TINY), trial * 1e-3)
    else:
        size = (0.01 / max(slope, bend, key=Tensor.item)) ** (1 / order)
    return torch.minimum(100 * trial, size).double()
