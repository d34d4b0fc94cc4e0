"""What `dynamic` saves, in gradients and in CPU time: a whole training, of two minutes.

A dynamic training (`recipes/mnist-dynamic-reduced.toml`) in one process, of whose batches every eighth is also attacked
with all the steps of its attack (`recipes/mnist-pgd-reduced.toml`), at the same weights; who comes first alternates.
Without the Parquet files of MNIST the bundled digits take its place, which then say little.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from benchmarks.data import mnist
from benchmarks.measuring import Row
from orchestrator import Recipe
from orchestrator.plan import work_of
from workers import schedule
from workers.attacker import Attacker
from workers.messages import Work
from workers.trainer import Trainer

RECIPES = Path(__file__).parent.parent / "recipes"
EVERY = 8  # steps between two comparisons


def work(name: str, *changes: str) -> Work:
    """A recipe's work in one process."""
    folder = mnist()
    data = ["dataset.name=parquet", f"dataset.folder={folder}"] if folder else ["dataset.name=digits"]
    return work_of(Recipe.load(RECIPES / name, [*data, "workers.backend=inline", *changes]))


def run() -> list[Row]:
    """Trains, and compares gradients and seconds."""
    dynamic = work("mnist-dynamic-reduced.toml")
    standard = work("mnist-pgd-reduced.toml", "defense.first=none", "defense.until=0")
    attackers, trainer = {"dynamic": Attacker(dynamic), "standard": Attacker(standard)}, Trainer(dynamic)
    images = len(trainer.bench.split)
    seconds: defaultdict[str, float] = defaultdict(float)
    gradients: defaultdict[str, float] = defaultdict(float)
    _, weights = trainer.snapshot()
    for step in range(dynamic.epochs * schedule.steps_per_epoch(dynamic, images)):
        shards, made = schedule.shards(dynamic, images, step), {}
        turn = ["dynamic", "standard"][:: 1 if step // EVERY % 2 else -1]
        for name in turn if step % EVERY == 0 else ["dynamic"]:
            made[name] = [attackers[name].attack(shard, weights) for shard in shards]
            if step % EVERY == 0:
                seconds[name] += sum(report.cpu_seconds for report, _ in made[name])
                gradients[name] += sum(report.backwards for report, _ in made[name])
        _, weights = trainer.step(step, *(payload for _, payload in made["dynamic"]))
    rows = []
    for what, spent in (("gradients", gradients), ("CPU seconds", seconds)):
        ratio, note = spent["dynamic"] / spent["standard"], f"{spent['dynamic']:.6g} against {spent['standard']:.6g}"
        rows.append(Row(f"dynamic, {what}", "all steps", ratio, ratio, ratio, seconds["dynamic"], note))
    return rows
