"""Free adversarial training against its loop written out, with batches that are replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from algorithms.defenses.free_adversarial import Climb, FreeAdversarial, Noise
from algorithms.models.mlp import Mlp
from algorithms.team import companion
from algorithms.updates.sgd import SGD
from orchestrator.backend import Inline
from tests.training import bits, changed
from workers import schedule
from workers.augmentation import Augmentation
from workers.messages import Work
from workers.trainer import Trainer


def work(**fields: Any) -> Work:
    plain = {"model": Mlp(hidden=(16,)), "update": SGD(learning_rate=0.1, momentum=0.0), "average": 0.0}
    return changed(
        **{**plain, "defense": FreeAdversarial(eps=0.1), "replays": 3, "augmentation": Augmentation(), **fields}
    )


def test_it_is_the_loop_of_the_paper() -> None:
    """Seven steps: three with a batch, three with the next, one with a third; the perturbations go on."""
    trainer = Trainer(work())
    start = trainer.bench.model.state_dict()
    w1, b1, w2, b2 = (start[name].clone().requires_grad_() for name in ("1.weight", "1.bias", "3.weight", "3.bias"))
    delta = torch.zeros(128, 1, 8, 8)
    for step in range(7):
        shards = schedule.shards(trainer.bench.work, len(trainer.bench.split), step)
        batches = [trainer.bench.read(shard) for shard in shards]
        trainer.step(step, *(batch.x.numpy() for batch in batches))
        x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
        noise = delta.clone().requires_grad_()
        hidden = functional.relu(functional.linear((x + noise).clamp(0, 1).flatten(1), w1, b1))
        loss = functional.cross_entropy(functional.linear(hidden, w2, b2), y)
        *slopes, slope = torch.autograd.grad(loss, [w1, b1, w2, b2, noise])
        with torch.no_grad():
            for weight, gradient in zip((w1, b1, w2, b2), slopes, strict=True):
                weight.sub_(0.1 * gradient)
        delta = (delta + 0.1 * slope.sign()).clamp(-0.1, 0.1)
    torch.testing.assert_close(trainer.bench.model.state_dict()["1.weight"], w1.detach(), rtol=1e-4, atol=1e-6)
    found = companion(trainer.bench.network, "noise", Noise).delta
    assert (found == delta).float().mean() > 0.999  # but for signs of gradients that are zero up to rounding


def test_a_batch_comes_as_often_as_it_is_to_be_replayed() -> None:
    plain, thrice = work(replays=1), work()
    assert schedule.steps_per_epoch(thrice, 1442) == 3 * schedule.steps_per_epoch(plain, 1442)
    for step in range(40):
        for one, other in zip(
            schedule.shards(thrice, 1442, step), schedule.shards(plain, 1442, step // 3), strict=True
        ):
            assert one.epoch == other.epoch
            assert np.array_equal(schedule.indices(thrice, 1442, one), schedule.indices(plain, 1442, other))


def test_the_same_bits_wherever_gradients_are_taken(tmp_path: Path) -> None:
    one, other = work(), work(exchange="gradients")
    found = bits(Inline(one), tmp_path / "examples", one)
    assert bits(Inline(other), tmp_path / "gradients", other) == found
    assert bits(Inline(work(replays=1)), tmp_path / "once", work(replays=1)) != found


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbations_climb_and_stay_in_the_ball(norm: Any) -> None:
    climb = Climb(norm=norm, eps=0.5, step_size=0.4)
    delta, slope = torch.zeros(3, 1, 2, 2), torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    order = {"linf": torch.inf, "l2": 2}[norm]
    for size in (0.4, 0.5, 0.5):
        moved, _ = climb.step({"delta": delta}, {"delta": slope}, {})
        delta = moved["delta"]
        assert ((delta * slope).flatten(1).sum(1) > 0).all()
        lengths = torch.linalg.vector_norm(delta.flatten(1), order, dim=1)
        torch.testing.assert_close(lengths, torch.full((3,), size))


@pytest.mark.parametrize(("field", "value"), [("eps", -1.0), ("stride", -1.0)])
def test_numbers_that_make_no_sense(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        FreeAdversarial(**{field: value})
