"""Networks through other solvers: views, guided gradients, records, and what adaptive steps do to a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from algorithms.models.odenet import OdeNet
from algorithms.models.soblock import SOBlock
from algorithms.models.sonet import SONet
from algorithms.ode.skew import Skew
from algorithms.ode.solver import Method, Solver
from algorithms.ode.views import Guided, flows, recorded, with_solver
from tests.networks import small
from tests.ode.systems import REFERENCE, SMOOTH, random
from tests.sketching import DIGITS, built

LOOSE = Solver(method="dopri5", tolerance=0.1)


def images(rows: int = 4) -> Tensor:
    return random(rows, *DIGITS, seed=7).sigmoid()


def network(rule: Skew = REFERENCE, solver: Solver = LOOSE) -> nn.Module:
    return built(SONet(width=4, block=rule, solver=solver), DIGITS).double().eval()


def test_a_view_computes_with_another_solver_and_shares_the_weights() -> None:
    model, rebuilt = network(), network(solver=Solver(method="euler"))
    view = with_solver(model, Solver(method="euler"))
    before = model(images())
    torch.testing.assert_close(view(images()), rebuilt(images()))
    assert (view(images()) != before).any()
    assert torch.equal(model(images()), before)
    assert all(one is other for one, other in zip(model.parameters(), view.parameters(), strict=True))
    assert {flow.solvers.prediction for flow in flows(model)} == {LOOSE}


def test_a_view_follows_training_and_keeps_a_mode_of_its_own() -> None:
    model = built(SOBlock(width=4), DIGITS)
    view = with_solver(model.train(), Solver(method="euler")).eval()
    model(images().float())
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), view.buffers(), strict=True))
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert not next(view.parameters()).any()


def test_only_networks_with_ode_blocks_have_views() -> None:
    with pytest.raises(ValueError, match="ODE blocks, such as odenet"):
        with_solver(small(), LOOSE)


def test_training_and_prediction_may_have_different_solvers() -> None:
    model = SONet(width=4, block=SMOOTH, solver=Solver(method="euler"), prediction=Solver(method="rk4", steps=2))
    made = built(model, DIGITS).double()
    for training, solver in ((True, model.solver), (False, model.prediction)):
        with recorded(made.train(training)) as traces:
            made(images())
        assert {trace.solver for trace in traces} == {solver}


def test_guided_logits_are_the_models_and_their_gradient_the_guides() -> None:
    model, guide = network(), Solver(steps=4)
    guided, x = Guided(model, guide), images().requires_grad_()
    assert torch.equal(guided(x), model(x))
    given = torch.autograd.grad(guided(x)[:, 0].sum(), x)
    expected = torch.autograd.grad(with_solver(model, guide)(x)[:, 0].sum(), x)
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("model", [OdeNet(width=6, depth=3, solver=LOOSE), SONet(width=4, solver=LOOSE)], ids=str)
def test_a_record_has_every_block_in_order_and_changes_nothing(model: OdeNet | SONet) -> None:
    made = built(model, DIGITS).double().eval()
    before = made(images())
    with recorded(made) as traces:
        inside = made(images())
    made(images())
    assert torch.equal(inside, before)
    assert [trace.block for trace in traces] == [flow.name for flow in flows(made)]
    assert len({flow.name for flow in flows(made)}) == len(traces) >= 3
    assert all(flow.log is None for flow in flows(made))
    assert all(trace.clipped[-1] == 1 for trace in traces)


@pytest.mark.parametrize("method", ["euler", "rk4", "adaptive_heun", "bosh3", "dopri5"])
def test_adaptive_steps_couple_the_images_of_a_batch_and_fixed_ones_do_not(method: Method) -> None:
    model, x = network(solver=Solver(method=method)), images(8) * torch.linspace(0.1, 1, 8).view(-1, 1, 1, 1)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(row[None]) for row in x])
    apart = float((together - alone).norm() / together.norm())
    assert apart < 1e-5 if method in ("euler", "rk4") else apart > 1e-4
