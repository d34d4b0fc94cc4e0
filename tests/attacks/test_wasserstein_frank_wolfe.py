"""Frank-Wolfe in a Wasserstein ball: its linear problem against a solver, and images that are in the ball."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algorithms.attacks.wasserstein_frank_wolfe import WassersteinFrankWolfe
from algorithms.search import Record, search
from algorithms.tensors import Images
from tests.networks import Affine
from tests.transport.oracle import best_gain, digits, distances

SLOPE = torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MODEL = Affine(torch.stack([torch.zeros_like(SLOPE), SLOPE]))


def attacked(attack: WassersteinFrankWolfe, x: Images) -> Record:
    y = torch.zeros(len(x), dtype=torch.int64)
    return search(attack, MODEL, x, y, rng=torch.Generator(), policy="highest loss")


def share(attack: WassersteinFrankWolfe, x: Images) -> list[float]:
    """Of the linear program's optimum, an image."""
    record = attacked(attack, x)
    gains = [((found - image).flatten() @ SLOPE).item() for image, found in zip(x, record.x_adv, strict=True)]
    return [gain / best_gain(image, SLOPE, attack.eps, attack.power) for gain, image in zip(gains, x, strict=True)]


@pytest.mark.parametrize("capped", [True, False])
@pytest.mark.parametrize("power", [1, 2])
def test_one_step_on_a_linear_score_is_the_linear_programs_optimum(power: Any, capped: bool) -> None:
    """Images so dark that no pixel comes near 1, and an entropy that hardly counts."""
    x = 0.05 * digits(3)[0]
    for eps in (0.1, 0.5):
        sharp = WassersteinFrankWolfe(
            eps=eps, power=power, window=0, steps=1, entropy=1e-3, sweeps=150, loss="margin", capped=capped
        )
        for found in share(sharp, x):
            assert 0.98 <= found <= 1 + 1e-9


@pytest.mark.parametrize("eps", [0.3, 0.9])
def test_it_knows_of_the_brightest_pixel(eps: float) -> None:
    x = digits(3)[0]
    capped = share(WassersteinFrankWolfe(eps=eps, window=0, steps=3), x)
    published = share(WassersteinFrankWolfe(eps=eps, window=0, steps=3, capped=False, entropy=1e-3), x)
    for with_cap, without in zip(capped, published, strict=True):
        assert without + 0.05 < with_cap <= 1 + 1e-9
        assert with_cap >= 0.9


@pytest.mark.parametrize("power", [1, 2])
def test_what_it_returns_is_in_the_ball_and_has_the_images_mass(power: Any) -> None:
    x = digits(4)[0].float()
    record = attacked(WassersteinFrankWolfe(eps=0.3, power=power, steps=5), x)
    assert ((record.x_adv >= 0) & (record.x_adv <= 1)).all()
    error = (record.x_adv.double().sum((1, 2, 3)) / x.double().sum((1, 2, 3)) - 1).abs()
    assert (error < 1e-6).all()
    assert max(distances(x, record.x_adv, power)) <= 0.3 * (1 + 1e-5)
    assert ((record.x_adv - x).flatten(1).double() @ SLOPE > 0).all()


def test_an_image_of_zeros_and_a_radius_of_zero_stay() -> None:
    x = digits(3)[0].clone()
    x[1] = 0
    assert torch.equal(attacked(WassersteinFrankWolfe(steps=3), x).x_adv[1], x[1])
    assert torch.equal(attacked(WassersteinFrankWolfe(steps=3, eps=0.0), x).x_adv, x)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"eps": -1.0}, "eps: a cost of transport per unit of mass, .*, at least 0, not -1"),
    ({"steps": 0}, "steps: a number of steps, at least 1, not 0"),
    ({"sweeps": 0}, "sweeps: a number of sweeps, at least 1, not 0"),
    ({"entropy": 0.0}, "entropy: a weight, between 1e-06 and 1, not 0"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WassersteinFrankWolfe(**fields)
