"""The recipes of optimal control, cut down to two steps on the digits: each defense under the constraint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from algorithms.updates.hamiltonian_maximization import HamiltonianMaximization
from orchestrator.backend import Inline
from orchestrator.config import load_recipe
from orchestrator.plan import work_of
from tests.training import loop_of

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*-msa*.toml"))
SMALL = {
    "cifar10-msa": ["model.width=4", "model.normalisation={}"],
    "cifar10-msa-pgd": ["model.width=4", "model.normalisation={}"],
    "cifar10-msa-short": ["model.model.width=4", "model.model.hidden=16"],
}


def test_there_are_the_clean_ones_and_one_for_each_defense() -> None:
    assert {path.stem for path in RECIPES} == {
        *("mnist-msa-mlp", "mnist-msa-conv", "mnist-msa-pgd", "mnist-msa-trades", "mnist-msa-dynamic"),
        *("cifar10-msa", "cifar10-msa-pgd", "cifar10-msa-short"),
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_two_steps_of_a_recipe_keep_its_bound(path: Path) -> None:
    budget = ["dataset.name=digits", "augmentation={}", "train.batch=64", "train.shard=32", "train.lag=0"]
    recipe = load_recipe(path, [*budget, *SMALL.get(path.stem, [])])
    assert isinstance(recipe.update, HamiltonianMaximization)
    work = work_of(recipe)
    backend = Inline(work)
    loop = loop_of(work, backend)
    for _ in range(2):
        metrics = loop.advance()
        loop.step += 1
    assert metrics["train/loss"] < 10
    dense = [layer for layer in backend.trainer.bench.model.modules() if isinstance(layer, nn.Linear)]
    assert all(float(torch.linalg.svdvals(layer.weight.detach().double())[0]) <= 1 + 1e-5 for layer in dense)
    assert ("pgd" in path.stem or "trades" in path.stem or "dynamic" in path.stem) == (
        metrics["cost/backwards_per_example"] > 0
    )
