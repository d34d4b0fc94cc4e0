"""SPSA's estimate against the gradient that it estimates, and the attack where there is no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.spsa import SPSA
from algorithms.ledger import Ledger
from algorithms.search import Problem
from algorithms.streams import Streams
from tests.attacks.optima import affine, smallest
from tests.attacks.records import run
from tests.networks import Affine, Counting, classes_of, images, margin, small


def estimates(attack: SPSA, weight: Tensor, rows: int) -> Tensor:
    """Estimates of the gradient of the margin, whose second logit minus the first is <weight, x>, all at one point."""
    model = Affine(torch.stack([0 * weight, weight]))
    x, y = images(1, dtype=torch.float64).expand(rows, -1, -1, -1), torch.zeros(rows, dtype=torch.int64)
    streams = Streams.draw(torch.Generator().manual_seed(7), rows)
    problem = Problem(model, Ledger(attack, x, y, "highest loss"), torch.arange(rows), streams, None)
    return attack.estimate(problem, x, 0).flatten(1)


def test_the_estimate_is_the_gradient_on_average() -> None:
    weight = torch.randn(36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = estimates(SPSA(samples=4), weight, 4000)
    spread = ((36 - 1) / 4 / 36) ** 0.5 * weight.norm()  # of one entry: the variance is (d - 1) / n |g|^2 in all
    assert ((found.mean(0) - weight).abs() <= 4.5 * spread / 4000**0.5).all()
    assert ((found - weight) ** 2).sum(1).mean() == pytest.approx(35 / 4 * float((weight**2).sum()), rel=0.05)


def test_one_entry_is_estimated_exactly() -> None:
    weight = torch.zeros(36, dtype=torch.float64)
    weight[5] = 3.0
    found = estimates(SPSA(samples=2), weight, 20)
    torch.testing.assert_close(found[:, 5], torch.full((20,), 3.0).double())
    assert set(found[:, 6].abs().round(decimals=9).tolist()) == {0.0, 3.0}  # v_5 v_6 averages to 0 or to 1


class Rounded(nn.Module):
    """A model without gradients, finely rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.model = small()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.model(x) * 256).round() / 256


def test_it_raises_the_loss_of_a_model_without_gradients() -> None:
    model, x = Rounded(), images(12)
    y = classes_of(model, x)
    record = run(SPSA(eps=0.1, steps=15), model, x, y, "highest loss")
    assert (margin(model(record.x_adv), y) > margin(model(x), y) + 0.1).all()
    assert not record.backwards.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_out_of_reach_stands(norm: Any) -> None:
    model, x, y = affine(classes=2, rows=10)
    reach = smallest(model, x, norm)
    eps = float(reach.median()) * 1.03
    record = run(SPSA(norm=norm, eps=eps, steps=30, step_size=eps / 8), model, x, y)
    assert not (record.success & (reach > eps)).any()
    assert record.success[reach < 0.6 * eps].all()


def test_probes_outside_the_ball_do_not_count() -> None:
    model, x, y = affine(classes=2, rows=10)
    eps = float(smallest(model, x, "linf").min()) * 0.9
    record = run(SPSA(eps=eps, steps=3, distance=1.0), model, x, y)  # its probes are fooled, far outside
    assert not record.success.any()


def test_what_it_costs() -> None:
    model, x = Counting(small()), images()
    y = classes_of(model.model, x)
    record = run(SPSA(eps=1e-4, steps=4, samples=5), model, x, y)
    assert record.forwards.tolist() == [4 * (2 * 5 + 1) + 1] * 6
    assert model.forwards == int(record.forwards.sum())


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("samples", 0), ("distance", 0.0), ("step_size", -1.0)])
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        SPSA(**{field: value})
