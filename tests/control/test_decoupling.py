"""One pass over all layers: bounds that count batch norms, the weights to keep, what happens where a layer fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.control import decoupling, folding, sdp
from algorithms.control.constraints.box import Box
from algorithms.control.constraints.semidefinite import Semidefinite
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.control.constraints.unconstrained import Unconstrained
from algorithms.control.decoupling import Decoupled, Problem
from algorithms.control.maximisation import Layer, Maximised, maximise
from algorithms.defenses.standard import Standard
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.models.mlp import Mlp
from algorithms.models.resnet18 import ResNet18
from algorithms.updates import Parameters
from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from algorithms.updates.sgd import SGD
from orchestrator.backend import Inline
from tests.control.networks import residual
from tests.told import Told
from tests.training import Notes, changed, loop_of
from workers import runtime
from workers.messages import Work
from workers.trainer import Trainer

CNN, RESNET = Cnn4(width=4, hidden=8), ResNet18(width=4)


def msa(model: Model, **fields: Any) -> Work:
    update = HamiltonianMaximization(**({"learning_rate": 0.2, "momentum": 0.5} | fields))
    return changed(model=model, update=update, defense=Standard(), average=0.0)


def stepped(work: Work, steps: int) -> Trainer:
    """A trainer after some steps on clean examples."""
    backend = Inline(work)
    loop = loop_of(work, backend)
    for _ in range(steps):
        loop.advance()
        loop.step += 1
    return backend.trainer


def norms(model: nn.Module) -> dict[str, float]:
    """Spectral norms of weights as matrices, with the scale of the batch norm after them as the model has it now."""
    found, modules = {}, dict(model.named_modules())
    order = list(modules)
    for name, layer in modules.items():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            after = modules[order[order.index(name) + 1]] if name != order[-1] else None
            matrix = layer.weight.detach().double().flatten(1)
            if isinstance(after, nn.BatchNorm2d):
                matrix = matrix * (after.weight / (after.running_var + after.eps).sqrt()).detach().double()[:, None]
            found[name] = float(torch.linalg.svdvals(matrix)[0])
    return found


@pytest.mark.parametrize("model", [CNN, RESNET], ids=["cnn4", "resnet18"])
def test_the_bound_on_layers_with_a_batch_norm_holds_after_each_step(model: Model) -> None:
    """With the statistics and the factor that the batch norm has after that very step."""
    for steps in (1, 3):
        found = norms(stepped(msa(model), steps).bench.model)
        assert len(found) == (4 if model is CNN else 21)
        assert max(found.values()) <= 1 + 1e-5
    free = norms(stepped(msa(model, constraint=Unconstrained()), 3).bench.model)
    assert max(free.values()) > 1.1  # they would be outside


def test_a_batch_norms_own_factor_can_be_bounded_with_its_statistics() -> None:
    name = "1.weight"
    trainer = stepped(msa(CNN, layers={name: Layer(constraint=Box(bound=0.7))}), 3)
    norm = trainer.bench.model[1]
    gains = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    assert gains.abs().max() == pytest.approx(0.7, abs=1e-6)
    assert trainer.model.memory[f"scale/{name}"].shape == (4,)


def test_what_is_kept_is_allowed_also_after_passes_that_do_not_project() -> None:
    update = {"every": 5, "constraint": SpectralNorm(bound=0.9)}
    trainer = stepped(msa(CNN, **update), 3)
    assert max(norms(trainer.bench.model).values()) > 1
    kept = trainer.model.settled(trainer.model.parameters)
    trainer.bench.model.load_state_dict(kept, strict=False)
    assert max(norms(trainer.bench.model).values()) <= 0.9 + 1e-5
    again = trainer.model.settled(kept)
    assert all(torch.equal(again[name], kept[name]) for name in kept)


def test_the_average_that_is_kept_is_allowed_too() -> None:
    work = replace(msa(CNN), average=0.5)
    trainer = stepped(work, 3)
    _, snapshot = trainer.finished()
    runtime.load(trainer.bench.model, snapshot)
    assert max(norms(trainer.bench.model).values()) <= 1 + 1e-5


def test_weights_and_statistics_stay_where_a_layer_fails() -> None:
    trainer = stepped(msa(CNN), 1)
    before = {name: value.clone() for name, value in trainer.bench.model.state_dict().items()}

    def fail(problems: Sequence[Problem]) -> list[Maximised]:
        raise FloatingPointError(f"{problems[-1].terms.name}: the projection is singular")

    trainer.model.solve = fail
    images = np.zeros((32, 1, 8, 8), np.float32)
    with pytest.raises(FloatingPointError, match=r"^step 1: 11.weight: the projection is singular"):
        trainer.step(1, *[images] * 4)
    after = trainer.bench.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert trainer.version == 1


def test_weights_of_two_axes_go_to_the_solver_together_and_the_rest_stays() -> None:
    model, seen = residual(), []
    parameters: Parameters = {name: p.detach() for name, p in model.named_parameters()}
    update = HamiltonianMaximization(learning_rate=0.1, layers={"5": Layer(frozen=True)})
    slopes = {name: torch.ones_like(value) for name, value in parameters.items()}

    def solve(problems: Sequence[Problem]) -> list[Maximised]:
        seen.append([problem.terms.name for problem in problems])
        return [maximise(*problem) for problem in problems]

    problems = update.problems(parameters, slopes, update.start(parameters))
    moved = decoupling.move(problems, {}, solve)
    expected, _ = update.step(parameters, slopes, update.start(parameters))
    assert seen == [["0.weight", "3.conv.weight"]]
    assert list(moved.parameters) == list(parameters)
    assert all(torch.equal(moved.parameters[name], expected[name]) for name in expected)


def test_only_the_update_of_this_method_is_decoupled() -> None:
    assert isinstance(HamiltonianMaximization(), Decoupled)
    assert not isinstance(SGD(), Decoupled)


def test_a_batch_norm_without_statistics_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ValueError, match="set track_running_stats=True"):
        folding.followers(model)


def test_a_solver_that_fails_is_told_once_and_counted_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sdp.OPTIONS, "clarabel", {"max_iter": 1})
    layers = {"3": Layer(constraint=Semidefinite(bound=0.3))}
    work = replace(msa(Mlp(hidden=(4,)), layers=layers), batch=512, shard=512)
    told, notes, exact = Told(), Notes(), replace(work, update=HamiltonianMaximization(learning_rate=0.2, momentum=0.5))
    loop = loop_of(work, Inline(work), tmp_path)
    weights = loop.run(notes, told, 1000, lambda: False)
    assert [sentence.partition(":")[0] for sentence in told.sentences] == ["step 0"]
    assert "3.weight: clarabel" in told.sentences[0]
    assert told.sentences[0].endswith("took the closed form")
    assert [metrics["train/fallbacks"] for metrics in notes.metrics] == [1.0, 1.0]
    closed = replace(exact, update=replace(exact.update, layers={"3": Layer(constraint=SpectralNorm(bound=0.3))}))
    other = loop_of(closed, Inline(closed), tmp_path / "closed").run(Notes(), Told(), 1000, lambda: False)
    assert weights.data.tobytes() == other.data.tobytes()
