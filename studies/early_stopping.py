"""What early stopping saves: a recipe with it against one without, with the same seeds, data and order.

    python -m studies.early_stopping recipes/mnist-pgd-reduced.toml recipes/mnist-dynamic-reduced.toml --seeds 0,1,2

Trains both recipes for each seed and prints accuracies, gradient evaluations and the attackers' CPU time side by side;
`key=value` at the end changes both recipes. Runs that are finished are not made again, so an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import NamedTuple

from orchestrator import Recipe, train
from orchestrator.evaluations.outcome import Outcome
from orchestrator.folders import RunFolder
from orchestrator.history import history
from orchestrator.plan import digest_of


class Figures(NamedTuple):
    """Of one run."""

    clean: float  # accuracies, shares of the test examples
    robust: float
    gradients: float  # of attacks, over the whole training, a training example and epoch
    seconds: float  # CPU time of the attackers over the whole training


def main() -> None:
    """Runs the study that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "recipes", nargs=2, type=Path, help="the recipe to compare with, and the one with early stopping"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to both recipes")
    arguments = parser.parse_intermixed_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    pairs = []
    for seed in seeds:
        pairs.append([figures_of(path, [*arguments.changes, f"seed={seed}"]) for path in arguments.recipes])
        print(table(seeds, pairs, [path.stem for path in arguments.recipes]), flush=True)


def figures_of(path: Path, overrides: list[str]) -> Figures:
    """Trains a recipe, unless that is done already, and reads what came out."""
    recipe = Recipe.load(path, overrides)
    folder = RunFolder(Path(recipe.tracking.folder).resolve() / f"{recipe.name}-{digest_of(recipe)[:8]}")
    if not folder.summary.exists():
        folder = train(recipe).folder
    (outcome,) = [Outcome.read(each.parent) for each in folder.evaluations.glob("*/outcome.json")]
    assert outcome is not None
    clean, robust = outcome.table[0].accuracy, outcome.table[-1].accuracy
    assert clean is not None
    assert robust is not None
    series = history(folder).series
    gradients = statistics.mean(value for _, value in series["cost/backwards_per_example"])
    seconds = sum(value for _, value in series["seconds/attack_cpu"])
    return Figures(clean.value, robust.value, gradients, seconds)


def table(seeds: list[int], pairs: list[list[Figures]], names: list[str]) -> str:
    """The comparison as Markdown: a row a run, then means and what the second recipe has of the first."""
    lines = ["| recipe | seed | clean | robust | gradients an example | attack CPU s |", "| --- " * 6 + "|"]
    for seed, pair in zip(seeds, pairs, strict=False):
        lines += [row(name, str(seed), found) for name, found in zip(names, pair, strict=True)]
    means = [Figures(*map(statistics.mean, zip(*column, strict=True))) for column in zip(*pairs, strict=True)]
    lines += [row(name, "mean", found) for name, found in zip(names, means, strict=True)]
    first, second = means
    points = [100 * (pair[1].robust - pair[0].robust) for pair in pairs]
    lines.append(
        f"\n{names[1]} against {names[0]}: {statistics.mean(points):+.2f} points of robust accuracy "
        f"({', '.join(f'{p:+.2f}' for p in points)}), {second.gradients / first.gradients:.3f} of the gradient "
        f"evaluations, {second.seconds / first.seconds:.3f} of the attack time"
    )
    return "\n".join(lines)


def row(name: str, seed: str, found: Figures) -> str:
    """A line of the table."""
    return (
        f"| {name} | {seed} | {100 * found.clean:.2f} % | {100 * found.robust:.2f} % | {found.gradients:.2f} "
        f"| {found.seconds:.1f} |"
    )


if __name__ == "__main__":
    main()
