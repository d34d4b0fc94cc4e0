"""Optimal control against plain and adversarial training on MNIST, and the curve over bound and temperature.

    python -m studies.optimal_control dataset.name=parquet dataset.folder=FOLDER

Trains each row for each seed on 20,000 images, attacks the first 1000 test images within 0.1 (linf) and 0.5 (l2), and
certifies l2 radii. `--rows mlp,conv` chooses; `key=value` changes all recipes. Finished runs are not made again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator import Recipe, train
from orchestrator.evaluation import evaluate
from orchestrator.evaluations.outcome import Outcome
from orchestrator.folders import RunFolder
from orchestrator.listener import Listener
from orchestrator.plan import digest_of
from orchestrator.recipe import Evaluation
from orchestrator.recorder import STAGE

RECIPES = Path(__file__).parent.parent / "recipes"
RADIUS = 0.5  # of the l2 attack, and of the certified accuracy beside it
COMMON = ("workers.backend=inline", "validation.share=0.6666667", "validation.every=100", "evaluation.examples=1000")
SGD = 'update={name="sgd",learning_rate=0.05,momentum=0.9}'
PGD = '{name="adversarial",attack={name="pgd",eps=0.1,step_size=0.025,steps=10}}'
FACTORS, BOUNDS = (0.5, 2.0, 3.0, 5.0, 10.0), (0.7, 1.4, 2.0)
CURVE = [(factor, 1.0) for factor in FACTORS] + [(1.0, bound) for bound in BOUNDS]
DEFENSES = ("pgd", "trades", "dynamic")


class Row(NamedTuple):
    """A line of the table: a recipe, and changes to it."""

    name: str
    recipe: str
    changes: tuple[str, ...] = ()
    seeds: bool = True  # False: the first seed only


class Figures(NamedTuple):
    """Of one run; shares are of the test examples."""

    clean: float
    linf: float  # accuracy under PGD-20 within the recipe's radius
    l2: float  # within RADIUS
    certified: float  # at RADIUS
    seconds: float  # CPU time of the training, in one process; NaN for a run that was finished before


def rows() -> list[Row]:
    """All rows, those of the main comparison first."""
    main = [
        Row(f"{net}: {title}", f"mnist-msa-{net}", changes)
        for net in ("mlp", "conv")
        for title, changes in (("SGD", (SGD,)), ("MSA", ()), ("SGD on PGD-10", (SGD, f"defense={PGD}")))
    ]
    curve = [
        Row(f"{net} curve: factor {factor:g}, bound {bound:g}", f"mnist-msa-{net}", traded(factor, bound), seeds=False)
        for net in ("mlp", "conv")
        for factor, bound in CURVE
    ]
    return [*main, *curve, *(Row(f"defenses: MSA, {name}", f"mnist-msa-{name}", seeds=False) for name in DEFENSES)]


def traded(factor: float, bound: float) -> tuple[str, ...]:
    """Steps get shorter where logits get larger, so that the trainings are comparable."""
    rate = 2.0 / factor / max(1.0, bound) ** 2
    return f"model.factor={factor}", f"update.constraint.bound={bound}", f"update.learning_rate={rate}"


@final
class Clock(Listener):
    """Measures the CPU time of the training."""

    def __init__(self) -> None:
        self.began, self.seconds = 0.0, float("nan")

    def begin(self, stage: str, total: int, unit: str) -> None:
        """The training begins."""
        if stage == STAGE:
            self.began = time.process_time()

    def end(self, stage: str) -> None:
        """The training ends."""
        if stage == STAGE:
            self.seconds = time.process_time() - self.began

    def advance(self, stage: str, done: int, note: str = "") -> None:
        """Nothing."""

    def say(self, message: str) -> None:
        """Nothing."""


def figures_of(row: Row, changes: list[str], seed: int) -> Figures:
    """Trains a row's recipe and evaluates it in both norms."""
    clock = Clock()
    overrides = [*COMMON, *row.changes, *changes, f"seed={seed}", f"name={row.recipe}"]
    recipe = Recipe.load(RECIPES / f"{row.recipe}.toml", overrides)
    folder = RunFolder(Path(recipe.tracking.folder).resolve() / f"{recipe.name}-{digest_of(recipe)[:8]}")
    if not folder.summary.exists():
        folder = train(recipe, listener=clock).folder
    first = evaluate(folder.path, recipe.evaluation)  # the training's own, read from its folder
    other = evaluate(
        folder.path, Evaluation(suite="quick", norm="l2", eps=RADIUS, examples=first.examples, certify=True)
    )
    clean, linf, l2 = share_of(first, 0), share_of(first, -1), share_of(other, -1)
    return Figures(clean, linf, l2, float((radii_of(other) > RADIUS).mean()), clock.seconds)


def share_of(outcome: Outcome, place: int) -> float:
    """The accuracy in a row of an evaluation's table."""
    share = outcome.table[place].accuracy
    assert share is not None
    return share.value


def radii_of(outcome: Outcome) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The certified radius of each example."""
    table = pq.read_table(outcome.parquet, columns=["attack", "certified"])
    clean = table.filter(pc.equal(table["attack"].cast("string"), "clean"))
    return np.asarray(clean["certified"].to_numpy())


def line(name: str, runs: list[Figures]) -> str:
    """A row of the table as Markdown: means over seeds, and the smallest and largest robust accuracy."""
    means = [statistics.mean(values) for values in zip(*runs, strict=True)]
    shares = " | ".join(f"{100 * value:.1f} %" for value in means[:4])
    robust = [100 * run.linf for run in runs]
    return f"| {name} | {len(runs)} | {shares} | {min(robust):.1f} to {max(robust):.1f} | {means[4]:.1f} |"


def main(arguments: list[str] | None = None) -> None:
    """Runs the study that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default="mlp,conv,defenses", help="beginnings of rows' names")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to all recipes")
    given = parser.parse_args(arguments)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    print("| row | seeds | clean | PGD-20, linf 0.1 | PGD-20, l2 0.5 | certified, l2 0.5 | seeds from, to | CPU s |")
    print("| --- " * 8 + "|")
    for row in rows():
        if row.name.startswith(tuple(given.rows.split(","))):
            runs = [figures_of(row, given.changes, seed) for seed in (seeds if row.seeds else seeds[:1])]
            print(line(row.name, runs), flush=True)


if __name__ == "__main__":
    main()
