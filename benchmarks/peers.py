"""Our attacks against those of the same name in other libraries: strength, passes and CPU time, in one process.

Every contest has one model, one set of images and one budget. Images are judged by a fresh prediction: who leaves the
box, or the ball of a budget attack, has not fooled. Passes are counted by hooks on the model. The network is robust:
a Madry network trained on MNIST by `recipes/mnist-benchmark.toml`, once. MNIST is looked for where torchvision puts it;
`BENCHMARK_MNIST=FOLDER` names a folder of Parquet files instead, and without either the bundled digits take its place.
"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algorithms import balls
from algorithms.attacks import Attack
from benchmarks.contests import Contest, budget, minimal
from benchmarks.measuring import Row
from benchmarks.rivals import Contestant, installed, load
from orchestrator import Recipe, train
from orchestrator.folders import RunFolder
from orchestrator.weights import load_model
from workers.cache import open_split

IMAGES = 64  # the first that the network gets right; attacks for the smallest norm, which take longer, get half
RECIPES = Path(__file__).parent.parent / "recipes"
FOLDER = "runs/benchmarks"


class Fought(NamedTuple):
    """What a contestant made of the images."""

    norms: Tensor  # of the perturbations that fool, infinite for those that do not
    forwards: float  # passes an image
    backwards: float
    seconds: float  # of the process's CPU time


class Whole(nn.Module):
    """A model whose parts nobody takes apart: ART calls the layers of a sequence one by one, past any hook."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.model(x)
        return logits


class Counter:
    """Counts the images that go through a model forward and backward, while it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.forwards, self.backwards = model, 0, 0

    def __enter__(self) -> Counter:
        self.handle = self.model.register_forward_hook(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _seen(self, module: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> None:
        self.forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._back)

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def robust() -> tuple[nn.Module, Tensor, Tensor]:
    """The network, trained the first time, and the first test images that it gets right."""
    parquet = os.environ.get("BENCHMARK_MNIST", "")
    changed = [f"tracking.folder={FOLDER}"]
    if parquet:
        changed += ["dataset.name=parquet", f"dataset.folder={parquet}"]
    mnist = parquet or Path("data/MNIST").is_dir()
    recipe = Recipe.load(RECIPES / ("mnist-benchmark.toml" if mnist else "digits-pgd.toml"), changed)
    model = Whole(load_model(trained(recipe), recipe)).eval()
    split = open_split(recipe.dataset, "test")
    x, y = split.images(np.arange(4 * IMAGES)), split.labels(np.arange(4 * IMAGES))
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:IMAGES]
    return model, x[right], y[right]


def trained(recipe: Recipe) -> RunFolder:
    """The run of a recipe: one that is finished, or a new one."""
    for summary in sorted(Path(recipe.tracking.folder).glob(f"{recipe.name}-*/summary.json")):
        return RunFolder(summary.parent.resolve())
    return train(recipe).folder


def ours(attack: Attack) -> Contestant:
    """One of our attacks as a contestant."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return attack(model, x, y, rng=torch.Generator().manual_seed(0))

    return run


def fight(contestant: Contestant, attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Fought:
    """Lets a contestant attack the images, and judges what it returns."""
    with torch.random.fork_rng(devices=[]), Counter(model) as counter:
        torch.manual_seed(0)
        began = time.process_time()
        x_adv = contestant(model, x.clone(), y.clone()).detach()
        seconds = time.process_time() - began
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        fooled = model(x_adv).argmax(1) != y
    size = balls.size(x_adv.double() - x.double(), attack.norm)
    eps = math.inf if attack.minimal else float(getattr(attack, "eps", math.inf))
    inside = (x_adv.flatten(1).amin(1) >= 0) & (x_adv.flatten(1).amax(1) <= 1) & (size <= eps * (1 + 1e-4))
    norms = torch.where(fooled & inside, size, math.inf)
    return Fought(norms, counter.forwards / len(x), counter.backwards / len(x), seconds)


def compared(contest: Contest, images: tuple[nn.Module, Tensor, Tensor]) -> list[Row]:
    """A row for each library: the ratio of CPU times, and in words what each has found and spent."""
    for library in filter(installed, contest.theirs):
        load(library)
    mine = fight(ours(contest.ours), contest.ours, *images)
    theirs = {
        library: fight(contestant, contest.ours, *images)
        for library, contestant in contest.theirs.items()
        if installed(library)
    }
    seconds = (mine.seconds + fight(ours(contest.ours), contest.ours, *images).seconds) / 2  # before the others, after
    return [
        Row(
            contest.name,
            library,
            seconds / other.seconds,
            min(seconds, mine.seconds) / other.seconds,
            max(seconds, mine.seconds) / other.seconds,
            seconds,
            f"{told(contest.ours, mine)}; theirs {told(contest.ours, other)}",
        )
        for library, other in theirs.items()
    ]


def told(attack: Attack, fought: Fought) -> str:
    """Strength and passes in words."""
    passes = f"{fought.forwards:.1f} + {fought.backwards:.1f} passes"
    if not attack.minimal:
        return f"{100 * (~fought.norms.isfinite()).double().mean().item():.1f} % stand, {passes}"
    middle = fought.norms.sort().values[(len(fought.norms) - 1) // 2].item()
    return f"median {middle:.4g}, {int((~fought.norms.isfinite()).sum())} failed, {passes}"


def run() -> list[Row]:
    """All contests, or those with `BENCHMARK_ONLY` in their names; they take many minutes."""
    model, x, y = robust()
    wanted = os.environ.get("BENCHMARK_ONLY", "")
    rows = []
    for contest in (*budget(), *minimal()):
        if wanted in contest.name:
            count = IMAGES // 2 if contest.ours.minimal else IMAGES
            found = compared(contest, (model, x[:count], y[:count]))
            for row in found:
                print(f"{row.what}, {row.against}: time x {row.ratio:.2f}; {row.note}", file=sys.stderr, flush=True)
            rows += found
    return rows
