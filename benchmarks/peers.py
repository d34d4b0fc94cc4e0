"""Our attacks against those of the same name in other libraries: strength, passes and CPU time, in one process.

Every contest has one model, one set of images and one budget. Images are judged by a fresh prediction: who leaves the
box, or the ball of a budget attack, has not fooled. Each contestant attacks two images first, which do not count: some
compile what they need then. Passes are counted by hooks on the model. The network is robust:
a Madry network trained on MNIST by `recipes/mnist-benchmark.toml`, once. MNIST is looked for where torchvision puts it;
`BENCHMARK_MNIST=FOLDER` names a folder of Parquet files instead, and without any the bundled digits take its place.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algorithms import balls
from algorithms.attacks import Attack
from algorithms.search import Policy, search
from benchmarks.contests import Contest, budget, minimal
from benchmarks.data import mnist
from benchmarks.measuring import Row
from benchmarks.rivals import Contestant, installed, load
from orchestrator import Recipe, train
from orchestrator.folders import RunFolder
from orchestrator.weights import load_model
from workers.cache import open_split

IMAGES = 1000  # at most, for a contest: the first that the network gets right
WARM = 2  # images that are attacked before the clock runs
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
    parquet = mnist()
    changed = [f"tracking.folder={FOLDER}"]
    if parquet:
        changed += ["dataset.name=parquet", f"dataset.folder={parquet}"]
    found = parquet or Path("data/MNIST").is_dir()
    recipe = Recipe.load(RECIPES / ("mnist-benchmark.toml" if found else "digits-pgd.toml"), changed)
    model = Whole(load_model(trained(recipe), recipe)).eval()
    split = open_split(recipe.dataset, "test")
    first = np.arange(min(len(split), IMAGES * 11 // 10))
    x, y = split.images(first), split.labels(first)
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:IMAGES]
    return model, x[right], y[right]


def trained(recipe: Recipe) -> RunFolder:
    """The run of a recipe: one that is finished, or a new one."""
    for summary in sorted(Path(recipe.tracking.folder).glob(f"{recipe.name}-*/summary.json")):
        return RunFolder(summary.parent.resolve())
    return train(recipe).folder


def ours(attack: Attack, policy: Policy = "first success") -> Contestant:
    """One of our attacks as a contestant. The global generator is the referee's: our seed is drawn from it."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        rng = torch.Generator().manual_seed(int(torch.randint(1 << 31, ())))
        return search(attack, model, x, y, rng=rng, policy=policy).x_adv

    return run


def fight(contestant: Contestant, attack: Attack, model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Fought:
    """Lets a contestant attack the images, and judges what it returns."""
    with torch.random.fork_rng(devices=[]), Counter(model) as counter:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - ART and foolbox draw from it
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


def series(contestant: Contestant, contest: Contest, images: tuple[nn.Module, Tensor, Tensor]) -> Fought:
    """A contestant's fights with all the contest's seeds, as one."""
    fights = [fight(contestant, contest.ours, *images, seed=seed) for seed in range(contest.seeds)]
    norms, forwards, backwards, seconds = zip(*fights, strict=True)
    return Fought(torch.cat(norms), statistics.fmean(forwards), statistics.fmean(backwards), sum(seconds))


def compared(contest: Contest, images: tuple[nn.Module, Tensor, Tensor]) -> list[Row]:
    """A row for each library: the ratio of CPU times, and in words what each has found and spent."""
    model, x, y = images
    mine, theirs = ours(contest.ours, contest.policy), {k: v for k, v in contest.theirs.items() if installed(k)}
    for library, contestant in theirs.items():
        load(library)
        fight(contestant, contest.ours, model, x[:WARM], y[:WARM])
    fight(mine, contest.ours, model, x[:WARM], y[:WARM])
    before = series(mine, contest, images)
    found = {library: series(contestant, contest, images) for library, contestant in theirs.items()}
    after = series(mine, contest, images)
    low, high = sorted((before.seconds, after.seconds))
    return [
        Row(
            contest.name,
            library,
            (low + high) / 2 / other.seconds,
            low / other.seconds,
            high / other.seconds,
            (low + high) / 2,
            f"{told(contest.ours, before)}; theirs {told(contest.ours, other)}; {len(x)} images",
        )
        for library, other in found.items()
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
    for contest in (*budget.contests(), *minimal.contests()):
        if wanted in contest.name:
            found = compared(contest, (model, x[: contest.images], y[: contest.images]))
            for row in found:
                print(f"{row.what}, {row.against}: time x {row.ratio:.2f}; {row.note}", file=sys.stderr, flush=True)
            rows += found
    return rows
