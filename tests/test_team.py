"""Companions of a model: they move by updates of their own, remember sums over a step's shards, and are not kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.models import Shape
from algorithms.search import Record, unperturbed
from algorithms.team import Companion, Companions, Team, accompanied, apart, companion, rows_of
from algorithms.tensors import Images, Labels
from algorithms.updates.adam import Adam
from algorithms.updates.sgd import SGD
from orchestrator.backend import Inline
from orchestrator.loop import Interrupted
from tests.networks import Affine, images
from tests.training import WORK, Notes, bits, changed
from workers import runtime, schedule
from workers.messages import Work
from workers.trainer import Trainer


class Guess(nn.Module):
    """Guesses the mean brightness of images, and remembers what it has seen."""

    seen: Tensor
    total: Tensor
    remembered: Tensor
    places: Tensor

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("remembered", torch.zeros(()))
        self.register_buffer("places", torch.zeros(batch))

    def forward(self, x: Tensor) -> Tensor:
        return self.value - x.mean(dim=(1, 2, 3))


@final
@dataclass(frozen=True, kw_only=True)
class Guessing(Defense):
    """Learns classes, and beside them, by plain gradient descent at a rate of 1/2, the mean brightness."""

    rate: float = 0.5

    def companions(self, shape: Shape, classes: int, batch: int) -> Companions:
        return {"guess": Companion(Guess(batch), SGD(learning_rate=self.rate, momentum=0.0))}

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        return unperturbed((x * (1 - 0.1 * companion(model, "guess", Guess).remembered)).clamp(0, 1))

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        guess = companion(model, "guess", Guess)
        guess.seen += len(x)
        guess.total += x.mean(dim=(1, 2, 3)).sum()
        guess.places[rows_of(model)] += 1
        return functional.cross_entropy(predict(model, x_adv), y) + guess(x).square().mean() / 2

    def settle(self, model: nn.Module) -> dict[str, float]:
        guess = companion(model, "guess", Guess)
        guess.remembered.copy_(guess.total / len(guess.places))
        guess.total.zero_()
        return {"brightness": guess.remembered.item()}


def guessing(**fields: Any) -> Work:
    return changed(defense=Guessing(), **fields)


def stepped(work: Work, steps: int) -> tuple[Trainer, list[dict[str, float]], list[float]]:
    """A trainer after some steps on clean images, what it reported, and the mean brightness of each batch."""
    trainer, reports, means = Trainer(work), [], []
    for step in range(steps):
        batches = [trainer.bench.read(s).x for s in schedule.shards(work, len(trainer.bench.split), step)]
        means.append(torch.cat(batches).mean().item())
        reports.append(trainer.step(step, *(x.numpy() for x in batches))[0].figures)
    return trainer, reports, means


def test_a_companion_moves_by_its_own_update_and_remembers_sums_over_shards() -> None:
    trainer, reports, means = stepped(guessing(), 3)
    guess = companion(trainer.bench.network, "guess", Guess)
    expected = 0.0
    for mean in means:
        expected -= 0.5 * (expected - mean)
    assert guess.value.item() == pytest.approx(expected, abs=1e-6)
    assert [report["brightness"] for report in reports] == pytest.approx(means, abs=1e-6)
    assert guess.seen.item() == 3 * 128
    assert torch.equal(guess.places, torch.full((128,), 3.0))  # every row of the batch, once a step


def test_the_model_moves_as_if_it_were_alone_and_is_kept_alone() -> None:
    plain = dataclasses.replace(WORK, defense=Guessing(rate=0.0))
    trainer, _, _ = stepped(guessing(), 2)
    alone, _, _ = stepped(plain, 2)
    assert np.array_equal(trainer.finished()[1].data, alone.finished()[1].data)
    kept = runtime.unflatten(trainer.finished()[1].data, trainer.bench.model.state_dict())
    assert kept.keys() == trainer.bench.model.state_dict().keys()
    assert trainer.snapshot()[1].data.nbytes > trainer.finished()[1].data.nbytes


def test_attackers_see_what_is_remembered_and_gradients_may_be_theirs(tmp_path: Path) -> None:
    reference = bits(Inline(guessing()), tmp_path / "examples", guessing())
    work = guessing(exchange="gradients")
    assert bits(Inline(work), tmp_path / "gradients", work) == reference
    forgetful = changed(defense=Guessing(rate=0.25))
    assert bits(Inline(forgetful), tmp_path / "same model", forgetful) == reference  # the guess moves no model


@pytest.mark.parametrize("lag", [0, 1])
def test_a_resumed_run_goes_on_with_its_companions(lag: int, tmp_path: Path) -> None:
    work = guessing(lag=lag)
    whole, backend, notes = Inline(work), Inline(work), Notes()
    expected = bits(whole, tmp_path / "whole", work)
    with pytest.raises(Interrupted):
        bits(Inline(work), tmp_path / "parts", work, notes=notes, stop=lambda: len(notes.steps) == 4)
    assert bits(backend, tmp_path / "parts", work) == expected
    ends = [each.trainer.snapshot()[1].data for each in (whole, backend)]
    assert np.array_equal(*ends)


def test_what_the_defense_says_of_a_step_is_recorded(tmp_path: Path) -> None:
    notes = Notes()
    bits(Inline(guessing()), tmp_path, guessing(), notes=notes)
    assert all(0 < metrics["train/brightness"] < 1 for metrics in notes.metrics)


def test_a_companion_that_diverges_is_named_and_nothing_has_moved() -> None:
    work = changed(defense=Guessing(rate=1e38))
    trainer = Trainer(work)
    batches = [trainer.bench.read(s).x for s in schedule.shards(work, len(trainer.bench.split), 0)]
    companion(trainer.bench.network, "guess", Guess).value.data.fill_(1e10)
    before = trainer.snapshot()[1].data
    with pytest.raises(FloatingPointError, match=r"step 0: .* of guess infinite or NaN"):
        trainer.step(0, *(x.numpy() for x in batches))
    assert np.array_equal(trainer.snapshot()[1].data, before)


def test_without_companions_the_network_is_the_model() -> None:
    model = Affine(torch.eye(36)[:4])
    assert accompanied(model, {}) is model
    with pytest.raises(ValueError, match=r"needs its companion 'guess' beside the model: network = accompanied"):
        companion(model, "guess", Guess)


def test_a_companion_comes_in_the_models_precision_and_predictions_are_the_models() -> None:
    model = Affine(torch.eye(36, dtype=torch.float64)[:4])
    network = accompanied(model, {"guess": Companion(Guess(6), Adam())})
    assert isinstance(network, Team)
    assert companion(network, "guess", Guess).value.dtype == torch.float64
    assert companion(network, "guess", Guess).seen.dtype == torch.int64
    x = images(dtype=torch.float64)
    assert torch.equal(network(x), model(x))


def test_apart_gives_gradients_for_inputs_and_none_for_parameters() -> None:
    model = nn.Linear(3, 2).double()
    x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    made = apart(model, x)
    assert torch.equal(made, model(x))
    slope, weight = torch.autograd.grad(made.sum(), [x, model.weight], allow_unused=True)
    torch.testing.assert_close(slope, model.weight.detach().sum(0, keepdim=True))
    assert weight is None
