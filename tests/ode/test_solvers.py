"""Solvers: known solutions, torchdiffeq's own values, what is recorded, and what does not finish."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from algorithms.ode import exact
from algorithms.ode.flow import Flow
from algorithms.ode.solver import Method, Solver, solvers
from algorithms.ode.views import recorded
from algorithms.ode.watch import State, Unfinished, Watch
from tests.ode.systems import SMOOTH, block, random

ADAPTIVE: list[Method] = ["adaptive_heun", "bosh3", "dopri5"]


class Power(nn.Module):
    """y' = t^4, so y(1) = 1/5."""

    def forward(self, t: Tensor, state: State) -> State:
        return (torch.ones_like(state[0]) * t**4,)


class Rotation(nn.Module):
    """A state of two parts that turns by `angle`, drawn inwards."""

    def __init__(self, angle: float = 3.0) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.tensor(angle, dtype=torch.float64))

    def forward(self, t: Tensor, state: State) -> State:
        a, b = state
        return self.angle * b - 0.1 * a**3, -self.angle * a - 0.1 * t * b


class Explosion(nn.Module):
    """y' = y^2 from y = 2: infinite at t = 1/2."""

    def forward(self, t: Tensor, state: State) -> State:
        return (state[0] ** 2,)


def solved(field: nn.Module, solver: Solver, *state: Tensor) -> State:
    return Flow(field, solvers(solver, None), "block")(*state)


@pytest.mark.parametrize(
    ("method", "steps", "value"),
    [
        ("euler", 1, 0.0),
        ("rk4", 1, 11 / 54),  # (3 / 81 + 3 * 16 / 81 + 1) / 8; the classical rule gives 5/24
        ("euler", 2, 1 / 32),
        ("euler", 10, 0.15333),  # the sum of (k / 10)^4 for k < 10, a tenth of it
    ],
)
def test_fixed_steps_are_those_of_the_published_rules(method: Method, steps: int, value: float) -> None:
    (end,) = solved(Power(), Solver(method=method, steps=steps), torch.zeros(1, 1, dtype=torch.float64))
    assert end.item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("gradient", ["direct", "exact"])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_tight_tolerance_finds_the_solution(method: Method, gradient: Any) -> None:
    solver = Solver(method=method, tolerance=1e-6, gradient=gradient, max_steps=10_000)
    (end,) = solved(Power(), solver, torch.zeros(1, 1, dtype=torch.float64))
    assert end.item() == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize("tolerance", [0.1, 0.001])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_exact_gradients_values_are_torchdiffeqs(method: Method, tolerance: float) -> None:
    field, state = Rotation(), (random(2, 3), random(2, 3, seed=1))
    with torch.no_grad():
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        expected = torchdiffeq.odeint(field, state, times, method=method, rtol=tolerance, atol=tolerance)
        given = exact.integrate(Watch(field, Solver(method=method, tolerance=tolerance), "block"), state)
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other[-1], rtol=1e-10, atol=1e-12)


# What is recorded


class Counting(nn.Module):
    """Counts on its own how often the field is computed."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field, self.count = field, 0

    def forward(self, t: Tensor, state: State) -> State:
        self.count += 1
        rates: State = self.field(t, state)
        return rates


@pytest.mark.parametrize(
    ("method", "stages", "start"),  # evaluations a step, and before the first
    [("euler", 1, 0), ("rk4", 4, 0), ("adaptive_heun", 1, 2), ("bosh3", 3, 2), ("dopri5", 6, 2)],
)
@pytest.mark.parametrize("gradient", ["direct", "adjoint", "exact"])
def test_steps_and_evaluations_are_recorded(method: Method, stages: int, start: int, gradient: Any) -> None:
    field = Counting(Rotation(angle=12.0))
    flow = Flow(field, solvers(Solver(method=method, steps=3, tolerance=0.01, gradient=gradient), None), "there")
    with recorded(flow) as traces:
        flow(random(2, 3), random(2, 3, seed=1))
    (trace,) = traces
    assert trace.block == "there"
    assert trace.evaluations == field.count == start + stages * (len(trace.times) - 1 + trace.rejected)
    assert trace.times[0] == 0
    assert list(trace.times) == sorted(set(trace.times))
    assert trace.times[-2] < 1 <= trace.times[-1] + 1e-12
    assert trace.clipped == (*trace.times[:-1], pytest.approx(1.0))
    if method in ("euler", "rk4"):
        assert trace.times == pytest.approx((0, 1 / 3, 2 / 3, 1))
        assert trace.rejected == 0


@pytest.mark.parametrize("gradient", ["direct", "exact"])
def test_a_rejected_step_is_not_a_time(gradient: Any) -> None:
    class Late(nn.Module):
        """Calm until t = 0.5, then fast: the step that grew until there is too long."""

        def forward(self, t: Tensor, state: State) -> State:
            return (torch.sigmoid(200 * (t - 0.5)) * 20 * torch.cos(20 * t) + 0 * state[0],)

    flow = Flow(Late(), solvers(Solver(method="bosh3", tolerance=0.001, gradient=gradient), None), "late")
    with recorded(flow) as traces:
        (end,) = flow(torch.zeros(1, 1, dtype=torch.float64))
    assert traces[0].rejected > 0
    assert end.item() == pytest.approx(math.sin(20) - math.sin(10), abs=0.05)


# What does not finish


@pytest.mark.parametrize("gradient", ["direct", "exact"])
def test_too_many_steps_name_block_time_and_tolerance(gradient: Any) -> None:
    solver = Solver(method="dopri5", tolerance=0.001, max_steps=3, gradient=gradient)
    message = (
        r"^spinning: dopri5 at tolerance 0\.001 did not reach .* t = 1: it stands at t = 0\.\d+, after max_steps = 3"
    )
    with pytest.raises(Unfinished, match=message):
        Flow(Rotation(angle=200.0), solvers(solver, None), "spinning")(random(2, 3), random(2, 3, seed=1))


@pytest.mark.parametrize("gradient", ["direct", "exact"])
def test_a_solution_that_explodes_is_an_error(gradient: Any) -> None:
    solver = Solver(method="dopri5", tolerance=0.001, gradient=gradient)
    with pytest.raises(Unfinished, match=r"block: .* it stands at t = 0\.(49|50)"):
        solved(Explosion(), solver, torch.full((1, 1), 2.0, dtype=torch.float64))


def test_weights_that_are_not_finite_are_an_error() -> None:
    broken = block(SMOOTH, Solver(method="bosh3"))
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    with pytest.raises(Unfinished, match=r"block: bosh3 at tolerance 0\.1 .* t = 0,"):
        broken(random(1, 3, 4, 4))


def test_the_adjoint_equation_may_fail_too() -> None:
    class Damped(nn.Module):
        """Calm forward in time, and stiff backward."""

        def forward(self, t: Tensor, state: State) -> State:
            return (-60 * state[0],)

    start = torch.full((1, 1), 1.0, dtype=torch.float64, requires_grad=True)
    solver = Solver(method="dopri5", tolerance=0.1, gradient="adjoint", max_steps=40)
    (end,) = solved(Damped(), solver, start)
    flow = Flow(Damped(), solvers(Solver(method="dopri5", tolerance=1e-9, gradient="adjoint", max_steps=4), None), "b")
    assert end.isfinite().all()
    with pytest.raises(Unfinished):
        flow(start)[0].sum().backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 0}, "steps"), ({"tolerance": 0.0}, "tolerance"), ({"max_steps": 0}, "max_steps")],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Solver(**settings)
