"""Attacks through views: what the view masks not is found, and the model itself has the last word."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from algorithms.attacks import Attack
from algorithms.attacks.ddn import DDN
from algorithms.attacks.pgd import PGD
from algorithms.attacks.through import Through
from algorithms.models.sonet import SONet
from algorithms.ode import solver as ode
from algorithms.ode.views import flows
from algorithms.search import search
from algorithms.views import View
from algorithms.views.averaged import Averaged
from algorithms.views.scaled import Scaled
from algorithms.views.solver import Solver
from tests.masked import Noisy, Saturated
from tests.networks import classes_of, images, small
from tests.sketching import DIGITS, built, pixels

WEAK = PGD(eps=0.1, step_size=0.025, steps=8)


def fooled(attack: Attack, model: nn.Module) -> int:
    x = images(32)
    y = classes_of(small(), x)
    return int(search(attack, model, x, y, rng=torch.Generator().manual_seed(0)).success.sum())


def test_scaled_logits_undo_saturation() -> None:
    model = Saturated(small(), 1e4)
    assert fooled(WEAK, model) <= 1  # the random start may do it
    assert fooled(Through(attack=WEAK, view=Scaled()), model) == fooled(WEAK, small()) > 5


def test_scaling_keeps_predictions_and_has_the_spread_that_it_says() -> None:
    model, x = small(), images()
    seen = Scaled(spread=3.0).see(model)(x)
    assert torch.equal(seen.argmax(1), classes_of(model, x))
    torch.testing.assert_close(seen.amax(1) - seen.amin(1), torch.full((len(x),), 3.0))


def test_an_average_is_the_mean_of_its_draws() -> None:
    x = images()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        seen = Averaged(draws=3).see(Noisy(small()))(x)
        torch.manual_seed(4)
        drawn = [Noisy(small())(x) for _ in range(3)]
    torch.testing.assert_close(seen, sum(drawn) / 3)


def test_a_solver_changes_the_gradient_and_nothing_else() -> None:
    model = built(SONet(width=4, solver=ode.Solver(method="dopri5")), DIGITS).eval()
    x = pixels(DIGITS).requires_grad_()
    views: list[View] = [Solver(gradient="direct"), Solver(method="euler", steps=1)]
    gradients = []
    for view in views:
        logits = view.see(model)(x)
        assert torch.equal(logits, model(x))
        gradients.append(torch.autograd.grad(logits.sum(), x)[0])
    torch.testing.assert_close(gradients[0], torch.autograd.grad(model(x).sum(), x)[0])
    assert not torch.allclose(gradients[1], gradients[0], rtol=1e-2)
    assert {flow.solvers.prediction.method for flow in flows(model)} == {"dopri5"}


def test_what_is_not_set_is_the_blocks_own() -> None:
    own = ode.Solver(method="bosh3", tolerance=0.01, max_steps=77)
    assert Solver().instead(own) == ode.Solver(method="bosh3", tolerance=0.01, max_steps=77, gradient="exact")
    sharper = Solver(sharper=100, gradient="direct").instead(own)
    assert sharper == ode.Solver(method="bosh3", tolerance=1e-4, max_steps=77)
    with pytest.raises(ValueError, match="steps: a number of equal steps"):
        Solver(steps=0)


def test_a_network_without_ode_blocks_has_no_other_solver() -> None:
    with pytest.raises(ValueError, match="ODE blocks, such as odenet"):
        fooled(Through(attack=WEAK, view=Solver()), small())


def test_it_is_as_its_attack_is() -> None:
    assert Through(attack=WEAK).eps == 0.1
    assert not Through(attack=WEAK).minimal
    minimal = Through(attack=DDN())
    assert minimal.minimal
    assert minimal.norm == "l2"
    assert minimal.eps == float("inf")
