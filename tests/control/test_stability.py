"""Spectra through a training: what is measured against numbers worked by hand, and where a run leaves it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from algorithms.models.mlp import Mlp
from algorithms.models.resnet18 import ResNet18
from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from orchestrator import plots, train
from orchestrator.history import history
from orchestrator.recipe import Evaluation, Recipe, Tracking, Train, Validation, Workers
from orchestrator.reports import page_of
from orchestrator.stability import spectra_in
from workers.stability import measured


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def test_figures_are_those_of_the_matrices() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, -2], [0, 0, 2, 0]]))
        model[2].weight.copy_(3 * torch.eye(2, 4))
    found = measured(model, images(), 0)
    figures = {name: value for name, value in found.figures.items() if not name.startswith("growth")}
    assert figures == pytest.approx({"norm/1": 5, "norm/2": 3, "radius/1": 2, "lipschitz": 15}, rel=1e-6)
    np.testing.assert_allclose(found.singular_values["1"], [5, 2, 2, 0], atol=1e-6)
    assert sorted(found.eigenvalues["1"].imag) == pytest.approx([-2, 0, 0, 2], abs=1e-6)
    assert list(found.eigenvalues) == ["1"]
    assert list(found.figures)[3:6] == ["growth/0", "growth/1", "growth/2"]
    assert found.figures["growth/0"] == pytest.approx(1, rel=1e-5)
    assert 0 < found.figures["growth/1"] <= 5


def test_a_batch_norm_counts_with_the_layer_before_it_and_no_bound_is_made_up() -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([3.0, 4.0]).view(2, 1, 1, 1))
        norm.running_var.fill_(4.0 - norm.eps)
    model = nn.Sequential(layer, norm).eval()
    assert measured(model, images(), 0).figures["norm/0"] == pytest.approx(2.5)
    residual = ResNet18(width=2).build((1, 8, 8), 3).eval()
    found = measured(residual, torch.rand(4, 1, 8, 8), 0)
    assert len(found.singular_values) == 21
    assert "growth/3.branch.0" in found.figures


def recipe(folder: Path, **fields: object) -> Recipe:
    return Recipe(
        **{"model": Mlp(hidden=(8, 8)), "update": HamiltonianMaximization(learning_rate=0.5), **fields},
        train=Train(epochs=2, batch=512, shard=512),
        validation=Validation(share=0.1, stability=True, examples=8),
        workers=Workers(backend="inline"),
        evaluation=Evaluation(suite="demo", examples=32, certify=True),
        tracking=Tracking(folder=str(folder / "runs"), uri=f"sqlite:///{folder}/mlflow.db"),
    )


def test_a_run_records_its_spectra_and_shows_them(tmp_path: Path) -> None:
    finished = train(recipe(tmp_path))
    series = history(finished.folder).series
    for layer in ("1", "3", "5"):
        norms = [value for _, value in series[f"stability/norm/{layer}"]]
        assert len(norms) == 2
        assert max(norms) <= 1 + 1e-5
    assert len(series["stability/radius/3"]) == 2
    assert series["stability/lipschitz"][-1][1] <= 1 + 1e-4
    kept = spectra_in(finished.folder)
    assert kept is not None
    assert {name: len(values) for name, values in kept[0].items()} == {"1": 8, "3": 8, "5": 8}
    assert kept[1]["3"].shape == (8, 2)
    assert json.loads(finished.folder.spectra.read_text())["epoch"] == 1
    assert finished.folder.spectra.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    page = page_of(finished.folder)
    assert [str(plot).split('aria-label="')[1].split('"')[0] for plot in page.stability] == [
        "norms of layers",
        "spectra of layers",
    ]
    assert finished.outcome.gains["3"] <= 1 + 1e-5


def test_eigenvalues_are_drawn_around_the_unit_circle_and_singular_values_by_rank() -> None:
    sizes = {"a": np.array([2.0, 1.0]), "b": np.array([3.0])}
    left, right = plots.spectra(sizes, {"a": np.array([[0.0, 1.0], [0.0, -1.0]])}).axes
    assert left.lines[0].get_xydata().tolist() == [[0.5, 2.0], [1.0, 1.0]]
    circle, points = right.lines
    np.testing.assert_allclose(np.hypot(*circle.get_data()), 1)
    assert points.get_xydata().tolist() == [[0.0, 1.0], [0.0, -1.0]]
    (alone,) = plots.spectra(sizes, {}).axes
    assert alone.get_ylabel() == "singular value"
    (norms,) = plots.stability_curves({"a": [(10, 1.0), (20, 0.5)]}).axes
    assert norms.lines[0].get_xydata().tolist() == [[10.0, 1.0], [20.0, 0.5]]
