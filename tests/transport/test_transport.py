"""Moves of mass: worked by hand, and held to what a linear program says of the images that they make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms import transport
from algorithms.transport import Moves, Routes
from tests.transport.oracle import best_gain, costs, digits, distance, distances

WINDOWS = [3, 5, 0]


def random_plan(x: Tensor, ways: Routes, share: float, seed: int = 0) -> Moves:
    """A plan that sends `share` of every pixel's mass away, at random."""
    rng = torch.Generator().manual_seed(seed)
    shape = (*x.shape[:2], *ways.cost.shape)
    chosen = torch.rand(shape, generator=rng, dtype=x.dtype) ** 4 * ways.moving
    return share * chosen / chosen.sum(2, keepdim=True) * x.flatten(2).unsqueeze(2)


def colour(batch: int = 3, height: int = 5, width: int = 7) -> Tensor:
    """Random images of three channels, some pixels 0 and some 1."""
    rng = torch.Generator().manual_seed(4)
    noise = 1.6 * torch.rand(batch, 3, height, width, generator=rng, dtype=torch.float64) - 0.3
    return noise.clamp(0, 1)


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("window", WINDOWS)
def test_moves_written_out_pixel_by_pixel(window: int, power: Any, metric: Any) -> None:
    x = colour(batch=2)
    ways = transport.routes(x, window, power, metric)
    plan = random_plan(x, ways, 0.7)
    matrix, after, price = costs(5, 7, power, metric), x.clone(), torch.zeros(2, dtype=x.dtype)
    reach = window // 2 if window else 100
    targets = ways.to_targets(torch.arange(35, dtype=x.dtype).view(1, 1, 5, 7))[0, 0]  # which pixel each target is
    for source in range(35):
        allowed = {
            target
            for target in range(35)
            if max(abs(source // 7 - target // 7), abs(source % 7 - target % 7)) <= reach and target != source
        }
        open_ways = ways.moving[:, source].nonzero().flatten().tolist()
        assert {int(targets[k, source]) for k in open_ways} == allowed
        for k in open_ways:
            target, amount = int(targets[k, source]), plan[:, :, k, source]
            after[:, :, source // 7, source % 7] -= amount
            after[:, :, target // 7, target % 7] += amount
            price += amount.sum(1) * matrix[source, target]
    torch.testing.assert_close(transport.arrive(x, plan, ways), after)
    torch.testing.assert_close(ways.price(plan), price)
    whole = transport.whole(x, plan, ways)
    torch.testing.assert_close(ways.leaving(whole), x)
    torch.testing.assert_close(ways.arriving(whole), after)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("window", WINDOWS)
def test_repaired_images_are_in_the_ball_by_a_linear_program(window: int, power: Any, dtype: torch.dtype) -> None:
    for x in (digits(4)[0].to(dtype), colour(2).to(dtype)):
        ways = transport.routes(x, window, power, "l2")
        for eps, share in ((0.1, 0.9), (2.0, 3.0)):  # three times its mass is more than a pixel has
            x_adv, moves = transport.feasible(x, random_plan(x, ways, share), ways, eps)
            assert x_adv.dtype == dtype
            assert ((x_adv >= 0) & (x_adv <= 1)).all()
            error = (x_adv.double().sum((1, 2, 3)) / x.double().sum((1, 2, 3)) - 1).abs()
            assert (error < 1e-6).all()
            assert max(distances(x, x_adv, power)) <= eps * (1 + 1e-5) + 1e-5
            assert (ways.price(moves) <= eps * x.flatten(1).sum(1) * (1 + 1e-5)).all()
            assert (x_adv - x).abs().amax() > 0.002


def test_what_is_feasible_is_left_as_it_is() -> None:
    x = colour() * 0.4
    ways = transport.routes(x, 3, 2, "l2")
    moves = random_plan(x, ways, 0.1)
    x_adv, kept = transport.feasible(x, moves, ways, 1.0)
    assert torch.equal(kept, moves)
    assert torch.equal(x_adv, transport.arrive(x, moves, ways))


def test_excess_goes_back_in_proportion() -> None:
    x = torch.tensor([0.6, 0.9, 0.3]).double().view(1, 1, 1, 3)
    ways = transport.routes(x, 3, 1, "l2")
    moves = torch.zeros(1, 1, 5 if not ways.side else 9, 3, dtype=x.dtype)[:, :, : len(ways.cost)]
    right, left = (ways.cost == 1).nonzero()[:, 0].unique().tolist()[::-1]
    moves[0, 0, right, 0], moves[0, 0, left, 2] = 0.2, 0.1  # 0.3 arrive where 0.1 fits: a third stays
    x_adv, kept = transport.feasible(x, moves, ways, 10.0)
    torch.testing.assert_close(kept[0, 0, right, 0].item(), 0.2 / 3)
    torch.testing.assert_close(kept[0, 0, left, 2].item(), 0.1 / 3)
    torch.testing.assert_close(x_adv.flatten().tolist(), [0.6 - 0.2 / 3, 1.0, 0.3 - 0.1 / 3])


def test_a_chain_of_full_pixels_ends_below_one() -> None:
    x = torch.ones(1, 1, 1, 40)  # every pixel full: nothing can move but in a circle
    x[..., -1] = 0.5
    ways = transport.routes(x, 3, 2, "l2")
    moves = ways.moving * 0.4 * (ways.to_targets(torch.arange(40.0).view_as(x)) > torch.arange(40.0))  # all go right
    x_adv, kept = transport.feasible(x, moves, ways, 10.0)
    assert x_adv.max() <= 1
    assert x_adv.sum().item() == pytest.approx(39.5, rel=1e-6)
    assert distance(x[0], x_adv[0], 2) <= ways.price(kept).item() / 39.5 + 1e-6


def test_a_row_is_repaired_without_the_others() -> None:
    x = colour(4)
    ways = transport.routes(x, 3, 2, "l2")
    moves = random_plan(x, ways, 0.9)
    together = transport.feasible(x, moves, ways, 0.8)[0]
    for row in range(4):
        assert torch.equal(transport.feasible(x[[row]], moves[[row]], ways, 0.8)[0], together[[row]])


@pytest.mark.parametrize("window", [3, 0])
def test_an_image_without_mass_and_a_radius_of_zero_stay(window: int) -> None:
    x = colour(2)
    x[0] = 0
    ways = transport.routes(x, window, 2, "l2")
    moves = random_plan(x, ways, 0.5)
    assert torch.equal(transport.feasible(x, moves, ways, 0.0)[0], x)
    assert torch.equal(transport.feasible(x, moves, ways, 1.0)[0][0], x[0])
    for value in transport.audit(x, transport.whole(x, moves, ways), ways, 1.0):
        assert value[0] == 0


def test_a_window_larger_than_the_image_is_the_whole_image() -> None:
    x = colour(1)
    assert transport.routes(x, 13, 2, "l2").side == 0
    assert transport.routes(x, 11, 2, "l2").side == 11
    full, window = (transport.routes(x, side, 2, "l2") for side in (0, 11))
    plan = random_plan(x, window, 0.5)  # the window of 11 leaves out what is 6 columns away
    assert full.cost.max() == 4**2 + 6**2
    assert window.cost.max() == 4**2 + 5**2
    assert plan.shape[2] == 121


def test_the_distance_of_a_shift_by_one_pixel_is_one() -> None:
    """What the tests' own solver says of a case that can be worked by hand."""
    x = torch.zeros(1, 6, 6)
    x[0, 2:4, 2:4] = 0.7
    for power in (1, 2):
        assert distance(x, torch.roll(x, 1, 2), power) == pytest.approx(1)
        assert distance(x, torch.roll(x, 2, 2), power) == pytest.approx(2**power)
        assert distance(x, torch.roll(x, (1, 1), (1, 2)), power, "l1") == pytest.approx(2**power)


@pytest.mark.parametrize("power", [1, 2])
def test_the_best_gain_is_the_minimum_of_its_dual(power: int) -> None:
    """The tests' linear program, without a cap, against its dual in one variable (Wu et al. 2020)."""
    x, slope = digits(2)[0][1], torch.randn(64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    matrix, image, g = costs(8, 8, power), x.flatten().numpy(), slope.numpy()
    worths = np.linspace(0, g.max() - g.min(), 4001)
    dual = [w * 0.4 * image.sum() + image @ ((g[None] - w * matrix).max(1) - g) for w in worths]
    primal = best_gain(x, slope, 0.4, power, capped=False)
    assert min(dual) == pytest.approx(primal, rel=1e-3)
    assert min(dual) >= primal - 1e-9
    assert best_gain(x, slope, 0.4, power) <= primal + 1e-9


def test_the_audit_tells_each_violation_from_the_others() -> None:
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    ways = transport.routes(x, 0, 2, "l2")
    stay = transport.whole(x, torch.zeros(1, 1, 4, 4, dtype=x.dtype), ways)

    def found(plan: Tensor) -> list[float]:
        return [value.item() for value in transport.audit(x, plan, ways, 0.1)]

    assert found(stay) == [0, 0, 0, 0]
    assert found(1.01 * stay) == pytest.approx([0.01, 0.01, 0, 0])
    swapped = stay.clone()  # the first pixel's mass is taken from the second: sums agree, sources do not
    swapped[0, 0, 0, 0], swapped[0, 0, 0, 1] = 0, 0.5
    assert found(swapped) == pytest.approx([0, 0.5, 0, 0.25 / 0.1])
    piled = stay.clone()
    piled[0, 0, 1, 1], piled[0, 0, 0, 1] = 0.0, 0.5
    piled[0, 0, 3, 3], piled[0, 0, 0, 3] = 0.0, 0.5  # 1.5 in the first pixel
    assert found(piled) == pytest.approx([0, 0, 0.25, (0.5 * 1 + 0.5 * 2) / 2 / 0.1])


def test_the_precision_error_is_that_of_the_papers() -> None:
    x = colour(2)
    assert transport.precision_error(x, 1.01 * x).tolist() == pytest.approx([0.01, 0.01])
    assert transport.precision_error(x, x.flip(3)).tolist() == pytest.approx([0, 0])
    assert transport.precision_error(0 * x, 0 * x).tolist() == [0, 0]


def test_radii_grow_as_in_the_papers_training() -> None:
    radii = [transport.radius(0.1, 1.4, 5, k) for k in range(50)]
    assert len(set(radii)) == 10
    assert radii[:6] == pytest.approx([0.1] * 5 + [0.14])
    assert radii[-1] == pytest.approx(2.066, abs=5e-4)
    assert transport.radius(0.3, 1.0, 5, 49) == 0.3


WRONG: list[tuple[tuple[Any, ...], str]] = [
    (
        (-0.1, 5, 1.0, 5),
        "eps: a cost of transport per unit of mass, in pixels to the power `power`, at least 0, not -0.1",
    ),
    ((0.1, 4, 1.0, 5), "window: an odd number of pixels, or 0 for the whole image, not 4"),
    ((0.1, -1, 1.0, 5), "window: an odd number of pixels, or 0 for the whole image, not -1"),
    ((0.1, 5, 0.5, 5), "growth: a factor on the radius, between 1 and 100, not 0.5"),
    ((0.1, 5, 1.4, 0), "every: steps between two radii, at least 1, not 0"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_wrong_fields_are_named(fields: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transport.check(*fields)
