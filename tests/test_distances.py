"""Plots and pictures of distances: the density by its formula, paths from runs, images by confidence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as pack
from torch import nn

from algorithms.defenses.margin import Margin
from algorithms.models.mlp import Mlp
from orchestrator import confidences, distance_plots, paths
from orchestrator.config import resolve
from orchestrator.evaluation import evaluate
from orchestrator.evaluations.drawing import figures_of, relative_norms
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.image_plots import Picture, grid
from orchestrator.recipe import Evaluation, Recipe, Workers
from orchestrator.weights import fresh_model
from tests.networks import Affine
from workers.cache import open_split
from workers.datasets.digits import Digits


def test_the_density_is_the_mean_of_normal_densities() -> None:
    sample, places = np.array([0.1, 0.2, 0.4, 0.4]), np.linspace(-0.5, 1, 7)
    width = sample.std() * (4 / (3 * 4)) ** 0.2
    expected = [np.exp(-(((p - sample) / width) ** 2) / 2).mean() / (width * math.sqrt(2 * math.pi)) for p in places]
    np.testing.assert_allclose(distance_plots.density(sample, places), expected, rtol=1e-6)
    assert np.isfinite(distance_plots.density(np.array([0.3, 0.3]), places)).all()


def drawn(axes: Any) -> tuple[list[float], list[float]]:
    (line,) = axes.lines
    return list(line.get_xdata()), list(line.get_ydata())


def test_a_path_shows_means_over_runs() -> None:
    steps = [distance_plots.Step(0.1, [0.02, 0.04], [0.1, 0.2]), distance_plots.Step(1.0, [0.05], [0.3])]
    errors, norms = distance_plots.path(steps, "defense.weight").axes
    assert drawn(errors) == (pytest.approx([0.1, 1.0]), pytest.approx([3.0, 5.0]))
    assert drawn(norms) == (pytest.approx([0.1, 1.0]), pytest.approx([0.15, 0.3]))
    assert errors.get_xscale() == "log"
    band = errors.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.0, 6.0))  # 3 +- 3 standard deviations of 1


def run_of(folder: Path, weight: float, seed: int) -> RunFolder:
    """A run with a linear model that was never trained, but whose logits tell digits apart a little."""
    run = RunFolder(folder / f"weight-{weight:g}-{seed}")
    recipe = Recipe(model=Mlp(hidden=()), defense=Margin(weight=weight), seed=seed, workers=Workers(backend="inline"))
    write_json(run.recipe, resolve(recipe))
    split = open_split(Digits(), "train")
    x, y = split.images(np.arange(400)), split.labels(np.arange(400))
    model = fresh_model(recipe)
    assert isinstance(model, nn.Sequential)
    means = torch.stack([x[y == c].flatten(1).mean(0) for c in range(10)])
    with torch.no_grad():
        model[1].weight.copy_(means / (1 + weight))
        model[1].bias.copy_(-means.square().sum(1) / 2 / (1 + weight))
    write_atomically(run.model, pack(model.state_dict()))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Two weights, two seeds of one of them."""
    folder = tmp_path_factory.mktemp("runs")
    return [run_of(folder, weight, seed) for weight, seed in ((0.5, 0), (0.1, 0), (0.1, 1))]


def test_runs_become_a_path_and_an_evaluation_shows_how_distances_are_spread(runs: list[RunFolder]) -> None:
    with pytest.raises(ValueError, match="no evaluation by an attack for the smallest norm"):
        paths.paths([runs[0].path], "defense.weight")
    asked = Evaluation(suite="deepfool", norm="l2", eps=1.0, examples=30)
    outcomes = [evaluate(run.path, asked) for run in runs]
    row = outcomes[0].table[1]
    assert row.relative is not None
    sample = relative_norms(outcomes[0])["DeepFool"]
    assert sample.mean() == pytest.approx(row.relative.correct)
    assert {"distances", "images"} <= set(figures_of(outcomes[0]))
    assert (outcomes[0].folder / "distances.png").is_file()
    steps, place = paths.paths([run.path for run in runs], "defense.weight")
    assert [(step.value, len(step.errors)) for step in steps] == [(0.1, 2), (0.5, 1)]
    assert steps[1].relative == [row.relative.correct]
    assert place.read_bytes().startswith(b"\x89PNG")
    for setting in ("defense.name", "defense.nothing", "train.epochs.more"):
        with pytest.raises(ValueError, match=r"^setting: a number in the recipe"):
            paths.paths([runs[0].path], setting)


def test_each_class_becomes_each_other(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, list[Picture]]] = []
    monkeypatch.setattr(confidences, "grid", lambda given: [lines.extend(given), grid(given)][1])
    place = confidences.confidences(runs[1].path, (0.5, 0.3), 4, classes=True)
    assert place.name == "classes.png"
    assert [name for name, _ in lines] == ["0", "1", "2", "3"]
    for own, (_, pictures) in enumerate(lines):
        assert [picture.caption.split()[0] for picture in pictures] == ["0", "1", "2", "3"]
        sure = [int(picture.caption.split()[1]) for picture in pictures]
        assert all(value >= 30 for place, value in enumerate(sure) if place != own)


def test_images_by_confidence_are_of_that_confidence(runs: list[RunFolder]) -> None:
    place = confidences.confidences(runs[1].path, (0.5, 0.9), 3)
    assert place.parent == runs[1].path
    assert place.read_bytes().startswith(b"\x89PNG")
    model = Affine(2 * torch.eye(64)[:4])
    x, y = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(5, dtype=torch.int64)
    x[:, 0, 0, 0] = 1.0
    lengths = []
    for level in (0.3, 0.6):
        x_adv = confidences.attacked(model, x, y, level)
        sure, found = model(x_adv).softmax(1).max(1)
        assert (found != y).all()
        assert (sure > level - 1e-4).all()
        lengths.append((x_adv - x).flatten(1).norm(dim=1))
    assert (lengths[1] > lengths[0]).all()
    with pytest.raises(ValueError, match=r"^levels: "):
        confidences.confidences(runs[1].path, (1.5,))
