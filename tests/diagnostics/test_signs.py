"""Each sign on networks that mask their gradients in known ways, and on honest ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from algorithms import plugins
from algorithms.balls import Norm
from algorithms.diagnostics.graded import Graded
from algorithms.diagnostics.signs import Columns, Scene, Sign, nearby
from algorithms.diagnostics.signs.finite_differences import FiniteDifferences
from algorithms.diagnostics.signs.stationarity import Stationarity
from algorithms.diagnostics.signs.step_sizes import StepSizes
from algorithms.modes import frozen
from algorithms.ode.solver import Solver
from algorithms.ode.views import with_solver
from algorithms.streams import Streams
from tests.masked import EPS, Noisy, Quantised, Saturated, adaptive, digits, plain, robust
from tests.networks import Affine

ROWS = 24
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "robust": robust,
    "quantised": lambda: Quantised(plain()),
    "saturated": lambda: Saturated(plain()),
    "noisy": lambda: Noisy(plain()),
    "adaptive": adaptive,
}
SHOWN = {  # which networks show which sign; the others do not show it
    "ascent": {"quantised", "saturated", "noisy"},
    "companions": {"adaptive"},
    "finite_differences": {"noisy", "adaptive"},
    "repetition": {"noisy"},
    "stationarity": set[str](),
    "step_sizes": {"adaptive"},
    "zero_gradients": {"quantised", "saturated"},
}


def scene(model: nn.Module, rows: int = ROWS, norm: Norm = "linf", eps: float = EPS) -> Scene:
    x, y = digits("test")
    streams = Streams.draw(torch.Generator().manual_seed(2), rows)
    return Scene(Graded(model), x[:rows], y[:rows], norm, eps, streams)


def measured(sign: Sign, scene: Scene) -> Columns:
    with frozen(scene.model):
        return sign.measure(scene)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SHOWN)
def test_signs_are_shown_by_those_that_mask(name: str, network: str) -> None:
    sign: Sign = plugins.find(Sign, name)()  # type: ignore[type-abstract]
    model = NETWORKS[network]()
    if not sign.applies(model):
        assert name == "step_sizes"
        assert network != "adaptive"
        return
    torch.manual_seed(0)  # what the noisy network draws
    columns = measured(sign, scene(model, 8 if network == "adaptive" else ROWS))
    share = float(columns["shows"].double().mean())
    if network in SHOWN[name]:
        assert share > sign.slack + 0.2
    else:
        assert share <= sign.slack
    assert all(len(column) == len(columns["shows"]) for column in columns.values())
    assert sign.summary(columns)
    assert sign.honest


def test_every_sign_is_tested() -> None:
    assert set(SHOWN) == set(plugins.names(Sign))


def test_the_exact_gradient_clears_an_adaptive_network() -> None:
    exact = with_solver(adaptive(), Solver(method="dopri5", tolerance=0.1, gradient="exact"))
    for sign in (StepSizes(), FiniteDifferences(directions=3)):
        assert not measured(sign, scene(exact, 4))["shows"].any()


def test_a_backward_pass_that_is_not_the_functions_is_found() -> None:
    class StraightThrough(nn.Module):
        """Rounds, and says that it does not."""

        def __init__(self) -> None:
            super().__init__()
            self.network = plain()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.network(x + ((4 * x).round() / 4 - x).detach())
            return logits

    columns = measured(FiniteDifferences(), scene(StraightThrough(), 6))
    assert columns["error"].isinf().all()
    assert columns["shows"].all()


def test_stationarity_of_a_linear_model_is_known() -> None:
    weight = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here = scene(Affine(weight.float()), eps=0.05)
    here = here._replace(y=here.y % 2)
    reached = measured(Stationarity(steps=20), here)
    torch.testing.assert_close(reached["left"], torch.zeros(ROWS), atol=1e-5, rtol=0)
    barely = measured(Stationarity(steps=1), here)
    assert 0.3 < float(barely["left"].mean()) < 0.5  # a random start, and an eighth of a radius from it


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.0), ("l1", 5.0)])
def test_points_nearby_are_images_within_the_ball_and_meet_no_ties(norm: Norm, eps: float) -> None:
    here = scene(plain(), norm=norm, eps=eps)
    delta = (nearby(here) - here.x).flatten(1)
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    assert (torch.linalg.vector_norm(delta, order, dim=1) <= eps + 1e-5).all()
    assert nearby(here).min() >= 0
    assert nearby(here).max() <= 1
    assert (delta != 0).double().mean() > 0.99


def test_a_model_without_a_gradient_is_given_a_zero_one() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = plain()(x.detach())
            return logits

    x = digits("test")[0][:3].clone().requires_grad_()
    logits = Graded(Detached())(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert not gradient.any()
    assert torch.equal(logits, plain()(x))
