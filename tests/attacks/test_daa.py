"""DAA's velocity by hand and by loops, and that no image feels another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from algorithms.attacks.daa import DAA
from tests.attacks.optima import affine, smallest
from tests.attacks.records import run
from tests.networks import Counting, classes_of, images, small


def test_the_velocity_of_two_particles_by_hand() -> None:
    particles = torch.tensor([0.0, 3.0, 0.0, 4.0]).view(1, 2, 1, 2, 1)  # (0, 3) and (0, 4)
    gradients = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 2, 1, 2, 1)
    # the squared distance is 1 = the median, so h^2 = 1 / (2 log 2) and K is exp(-log 2) = 1/2 between the two
    inverse, pull = 2 * math.log(2), 1.1 / 2
    first = (1 + pull * (1 + 0), 0 + pull * (0 + 0.5 * 2 + 0.5 * inverse))
    second = (0 + pull * 0.5, 2 + pull * (2 + 0 - 0.5 * inverse))
    found = DAA().velocity(particles, gradients)
    assert found.flatten().tolist() == pytest.approx([*first, *second])


def test_the_velocity_written_out() -> None:
    rng = torch.Generator().manual_seed(0)
    particles = torch.rand(2, 4, 1, 3, 3, generator=rng, dtype=torch.float64)
    gradients = torch.randn(particles.shape, generator=rng, dtype=torch.float64)
    found = DAA(weight=0.7).velocity(particles, gradients)
    for row in range(2):
        x, g = particles[row].flatten(1), gradients[row].flatten(1)
        squares = [[float(((x[i] - x[j]) ** 2).sum()) for j in range(4)] for i in range(4)]
        pairs = sorted(squares[i][j] for i in range(4) for j in range(i))
        width = 0.5 * pairs[2] / math.log(4)  # torch's median of six is the third
        for i in range(4):
            drift = sum(math.exp(-squares[i][j] / (2 * width)) * (g[j] - (x[i] - x[j]) / width) for j in range(4))
            torch.testing.assert_close(found[row, i].flatten(), g[i] + 0.7 / 4 * drift)


def test_no_image_feels_another() -> None:
    rng = torch.Generator().manual_seed(0)
    particles = torch.rand(3, 4, 1, 3, 3, generator=rng, dtype=torch.float64)
    gradients = torch.randn(particles.shape, generator=rng, dtype=torch.float64)
    alone = DAA().velocity(particles[1:2], gradients[1:2])
    torch.testing.assert_close(DAA().velocity(particles, gradients)[1:2], alone, rtol=0, atol=0)


def test_it_fools_rows_well_within_reach_and_no_others() -> None:
    model, x, y = affine(classes=2, rows=12)
    reach = smallest(model, x, "linf")
    eps = float(reach.median()) * 1.1
    record = run(DAA(eps=eps, step_size=eps / 4, steps=15), model, x, y)
    assert (reach < 0.9 * eps).sum() >= 4
    assert record.success[reach < 0.9 * eps].all()
    assert not record.success[reach > eps].any()


def test_every_particle_is_judged_at_its_last_point() -> None:
    model, x = Counting(small()), images()
    y = classes_of(model.model, x)
    run(DAA(eps=1e-3, steps=3, particles=4), model, x, y, "highest loss")
    assert model.forwards == len(x) * (3 * 4 + 4)
    assert model.backwards == len(x) * 3 * 4


@pytest.mark.parametrize(("field", "value"), [("particles", 1), ("steps", 0), ("step_size", -1.0), ("eps", 2.0)])
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        DAA(**{field: value})
