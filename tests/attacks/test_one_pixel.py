"""The one-pixel attack against the best single pixel of linear models, and its evolution by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from algorithms.attacks.one_pixel import OnePixel, evolved, others, painted
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels
from tests.attacks.records import run
from tests.networks import Affine, classes_of, images

SMALL = OnePixel(population=40, generations=25)


def colours(rows: int = 8) -> tuple[Affine, torch.Tensor, torch.Tensor]:
    """Two classes, images of three channels, and what the best pixel gains, with all channels at their best."""
    weight = torch.randn(108, generator=torch.Generator().manual_seed(1))
    model, x = Affine(torch.stack([0 * weight, weight])), images(rows, 3)
    slopes = weight.view(1, 3, 6, 6)
    gain = torch.where(slopes > 0, slopes * (1 - x), -slopes * x).sum(1).flatten(1).amax(1)
    return model, x, gain


def test_it_finds_the_best_pixel_and_colour() -> None:
    model, x, best = colours()
    record = run(SMALL, model, x, torch.zeros(8, dtype=torch.int64), "highest loss")
    gain = (model(record.x_adv) - model(x))[:, 1]
    assert (gain <= best + 1e-5).all()
    assert (gain >= 0.85 * best).all()
    assert gain.sum() >= 0.95 * best.sum()
    assert (record.norm == 1).all()
    assert ((record.x_adv != x).any(1).sum((1, 2)) == 1).all()
    assert record.forwards.tolist() == [40 * 26 + 1] * 8


def test_rows_fall_if_a_pixel_can_make_them() -> None:
    model, x, gain = colours()
    gap = model(x)[:, 1].detach()
    for share, falls in ((0.7, True), (1.01, False)):  # of what the best pixel can gain
        for i in range(2):
            shifted = Affine(model.weight.detach(), torch.stack([(gap + share * gain)[i], torch.tensor(0.0)]))
            record = run(SMALL, shifted, x[i : i + 1], torch.zeros(1, dtype=torch.int64))
            assert record.success.item() == falls
            assert (record.forwards.item() < 1000) == falls


def test_more_pixels_gain_more() -> None:
    model, x, one = colours()
    record = run(OnePixel(eps=3, population=40, generations=25), model, x, classes_of(model, x) * 0, "highest loss")
    assert (record.norm <= 3).all()
    assert ((model(record.x_adv) - model(x))[:, 1] > one).sum() >= 7


def test_children_by_hand() -> None:
    parents = torch.rand(2, 5, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    streams = Streams.draw(torch.Generator().manual_seed(1), 2)
    children, drawn = evolved(parents, None, 0.5, streams, 1), 0
    for row, i in itertools.product(range(2), range(5)):
        rest = [j for j in range(5) if j != i]
        made = torch.stack(
            [parents[row, a] + 0.5 * (parents[row, b] - parents[row, c]) for a, b, c in itertools.permutations(rest, 3)]
        )
        outside = (made < 0) | (made > 1)
        made[..., 2:] = made[..., 2:].clamp(0, 1)
        outside[..., 2:] = False
        same = (made - children[row, i]).abs() < 1e-12
        assert (same | outside).all((1, 2)).any()  # one triple explains it, but for places that had left the image
        drawn += int(same.all((1, 2)).any())
    assert drawn > 3
    assert ((children >= 0) & (children <= 1)).all()


def test_children_of_the_best_by_hand() -> None:
    parents = torch.full((2, 4, 1, 3), 0.5) + 0.1 * torch.arange(4).view(4, 1, 1)
    streams = Streams.draw(torch.Generator().manual_seed(1), 2)
    children = evolved(parents, torch.tensor([2, 0]), 0.0, streams, 1)
    assert torch.equal(children, parents[[0, 1], [2, 0]].unsqueeze(1).expand_as(parents))
    moved = (evolved(parents, torch.tensor([0, 0]), 0.5, streams, 1) - 0.5)[..., 2]
    assert all(min(abs(step - k * 0.05) for k in range(-3, 4)) < 1e-6 for step in moved.flatten().tolist())


def test_several_pixels_climb_faster_from_the_best() -> None:
    model, x, _ = colours()
    y = classes_of(model, x) * 0
    random, best = (OnePixel(eps=4, population=30, generations=12, base=base) for base in ("random", "best"))
    assert gained(best, model, x, y) > 1.1 * gained(random, model, x, y)


def gained(attack: OnePixel, model: Affine, x: Images, y: Labels) -> float:
    return (model(run(attack, model, x, y, "highest loss").x_adv) - model(x))[:, 1].sum().item()


def test_the_three_others_are_distinct_and_equally_likely() -> None:
    streams = Streams.draw(torch.Generator().manual_seed(1), 4000)
    three = torch.stack(others(4, streams, 0), 2)
    assert torch.equal(
        three.sort(2).values, torch.tensor([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]).expand(4000, 4, 3)
    )
    counts = torch.unique(three[:, 0], dim=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 4000 / 6 - 5 * (4000 / 6) ** 0.5


def test_painting_by_hand() -> None:
    x = torch.zeros(1, 2, 2, 3)
    pixels = torch.tensor([[[0.6, 0.9, 0.25, 0.5], [0.0, 0.4, 1.0, 0.75], [0.99, 1.0, 0.5, 1.0]]])
    image = painted(x, pixels)  # the first in row 1, column 2, where the third comes on top
    assert image[0].tolist() == [[[0, 1.0, 0], [0, 0, 0.5]], [[0, 0.75, 0], [0, 0, 1.0]]]


@pytest.mark.parametrize(("field", "value"), [("eps", -1), ("population", 3), ("generations", -1), ("scale", 3.0)])
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        OnePixel(**{field: value})
