"""Where walks along the boundary begin: noise of several kinds, and a line to the boundary."""

from __future__ import annotations

from typing import Any

import torch

from algorithms import starts
from algorithms.attacks import Attack
from algorithms.search import Ledger, Problem
from algorithms.streams import Streams
from tests.attacks.optima import affine, smallest
from tests.networks import Affine, Counting, classes_of
from tests.rules import Scripted


def problem_of(model: Any, x: torch.Tensor, y: torch.Tensor, attack: Attack) -> Problem:
    streams = Streams.draw(torch.Generator().manual_seed(0), len(x))
    return Problem(model, Ledger(attack, x, y, "first success"), torch.arange(len(x)), streams, None)


def test_the_point_is_just_across_the_boundary() -> None:
    model, x, y = affine(rows=8)
    counted = Counting(model)
    problem = problem_of(counted, x, y, Scripted((), minimal=True, norm="l2"))
    point, found = starts.at_the_boundary(problem, 10)
    assert found.all()
    assert counted.forwards == 8 * (1 + 10 + starts.HALVINGS)
    assert (classes_of(model, point) != y).all()
    back = x + (1 - 2 / 2**starts.HALVINGS) * (point - x)  # two last halvings nearer
    assert (classes_of(model, back) == y).all()
    assert (problem.best.norm == torch.linalg.vector_norm((point - x).flatten(1), dim=1)).all()
    assert (problem.best.norm > smallest(model, x, "l2")).all()


def test_of_the_noise_images_the_nearest_is_taken() -> None:
    x = torch.full((6, 1, 6, 6), 0.45)
    dark = Affine(torch.stack([torch.zeros(36), torch.ones(36)]), torch.tensor([0.0, -17.1]))  # 17.1 / 36 = 0.475
    y = torch.zeros(6, dtype=torch.int64)
    problem = problem_of(dark, x, y, Scripted((), minimal=True, norm="l0"))
    point, found = starts.at_the_boundary(problem, 8)
    images = torch.stack([starts.noise(x, problem.streams, draw) for draw in range(8)])
    reach = ((images - x) ** 2).sum((2, 3, 4)).masked_fill(images.mean((2, 3, 4)) <= 0.475, torch.inf)  # in l2
    assert found.tolist() == reach.isfinite().any(0).tolist()
    assert found.sum() > 2
    nearest = images[reach.argmin(0), torch.arange(6)]
    along = ((point - x) / (nearest - x))[found].flatten(1)
    torch.testing.assert_close(along, along[:, :1].expand(-1, 36), rtol=1e-3, atol=0)


def test_rows_that_fool_already_stay_and_some_find_none() -> None:
    x = torch.full((4, 1, 6, 6), 0.5)
    model = Affine(torch.zeros(2, 36), torch.tensor([0.0, 1.0]))  # gives every image class 1
    problem = problem_of(model, x, torch.tensor([1, 0, 1, 0]), Scripted((), minimal=True))
    point, found = starts.at_the_boundary(problem, 6)
    assert found.tolist() == [False, True, False, True]
    assert torch.equal(point, x)


def test_noise_is_of_several_kinds() -> None:
    x, streams = torch.zeros(3, 2, 9, 9), Streams.draw(torch.Generator().manual_seed(0), 3)
    for draw in range(8):
        image = starts.noise(x, streams, draw)
        assert image.shape == x.shape
        assert ((image >= 0) & (image <= 1)).all()
        grain = starts.GRAINS[draw % 4]
        assert torch.equal(image[:, :, :grain, :grain], image[:, :, :1, :1].expand(-1, -1, grain, grain))
        assert (image == image.round()).all() == (draw >= 4)
        assert len(image.flatten(1).unique(dim=0)) > 1 or grain == 8


def test_a_climb_finds_what_noise_does_not() -> None:
    x = torch.full((2, 1, 6, 6), 0.05)
    corner = torch.zeros(6, 6)
    corner[0, :2] = 1.0
    model = Affine(
        torch.stack([torch.zeros(36), corner.flatten() - 0.05 * (1 - corner.flatten())]), torch.tensor([0.9, 0.0])
    )
    y = torch.zeros(2, dtype=torch.int64)
    attack = Scripted((), minimal=True, norm="l2")
    assert not starts.at_the_boundary(problem_of(model, x, y, attack), 8)[1].any()
    point, found = starts.at_the_boundary(problem_of(model, x, y, attack), 8, climbing=True)
    assert found.all()
    assert (classes_of(model, point) == 1).all()
    best = smallest(model, x, "l2")
    assert (
        torch.linalg.vector_norm((point - x).flatten(1), dim=1) <= 1.01 * best
    ).all()  # it is straight, the first time
