"""What happens while a block is solved: steps and evaluations are counted, and a solver that gets stuck is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

from torch import Tensor

from algorithms.ode.solver import Solver
from algorithms.tensors import finite

State = tuple[Tensor, ...]  # each part has the batch first
Field = Callable[[Tensor, State], State]  # time and state -> the state's derivative

END = 1.0  # every block runs from time 0 to 1


class Unfinished(FloatingPointError):  # noqa: N818 - a state of the solver
    """An adaptive solver that did not reach the end."""


class Trace(NamedTuple):
    """How one solver went through one block, once."""

    block: str
    solver: Solver
    times: tuple[float, ...]  # 0 and the end of each accepted step; an adaptive solver's last one lies beyond the end
    rejected: int  # steps that were tried and made too large an error
    evaluations: int  # of the field, in the forward pass

    @property
    def clipped(self) -> tuple[float, ...]:
        """The times with the end in place of what lies beyond it, as the literature prints them."""
        return tuple(min(time, END) for time in self.times)


@final
class Watch:
    """A field that counts its evaluations and looks at each step before it is taken.

    torchdiffeq calls `callback_step`, and `callback_step_adjoint` in the adjoint equation's own solution.
    """

    def __init__(self, field: Field, solver: Solver, block: str) -> None:
        self.field, self.solver, self.block = field, solver, block
        self.attempts: list[tuple[float, float]] = []  # start and size of each step that was tried
        self.backward = 0  # steps of the adjoint equation
        self.evaluations = 0

    def __call__(self, t: Tensor, state: State) -> State:
        """The field."""
        self.evaluations += 1
        return self.field(t, state)

    def callback_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Notes a step that is about to be tried. Raises Unfinished if it leads nowhere."""
        time, size = float(t.detach()), float(dt.detach())
        if self.solver.adaptive:
            self._check(time, size, len(self.attempts), state)
        self.attempts.append((time, size))

    def callback_step_adjoint(self, t: Tensor, state: State, dt: Tensor) -> None:
        """Looks at a step of the adjoint equation, whose time runs backward. Raises Unfinished if it leads nowhere."""
        if self.solver.adaptive:
            self._check(-float(t.detach()), float(dt.detach()), self.backward, state)
        self.backward += 1

    def _check(self, time: float, size: float, tried: int, state: State) -> None:
        """Raises Unfinished for too many steps, for one that does not advance, for a state that is not finite."""
        if tried >= self.solver.max_steps:
            reason = f"after max_steps = {tried} steps"
        elif not all(finite(part) for part in state):
            reason = "its state is no longer finite"
        elif not time + size > time:
            reason = "its steps have become too small to advance"
        else:
            return
        raise Unfinished(
            f"{self.block}: {self.solver} did not reach the end of the block, t = {END if time >= 0 else 0:g}: it "
            f"stands at t = {abs(time):.6g}, {reason}; the weights may make the equation stiff: take a looser "
            "tolerance, more max_steps, a solver with fixed steps (euler, rk4), or a lower learning rate"
        )

    def trace(self) -> Trace:
        """What happened until now. A step was accepted if the next one starts elsewhere; the last one always was."""
        starts = [time for time, _ in self.attempts]
        accepted = [
            time + size
            for place, (time, size) in enumerate(self.attempts)
            if place + 1 == len(starts) or starts[place + 1] > time
        ]
        return Trace(
            block=self.block,
            solver=self.solver,
            times=(0.0, *accepted),
            rejected=len(starts) - len(accepted),
            evaluations=self.evaluations,
        )
