"""What is recorded of each step: the names that MLflow shows, with what they mean and their units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from workers.messages import ShardReport, StepReport


class StepTimes(NamedTuple):
    """Of the driver's clock, seconds."""

    total: float  # from the first submission of the step's round to its confirmation
    waited: float  # for the attackers


def step_metrics(report: StepReport, shards: Sequence[ShardReport], times: StepTimes) -> dict[str, float]:
    """A step's metrics. What was not measured (an accuracy of a clean run's attacks, say) is left out."""
    examples = sum(shard.examples for shard in shards)
    metrics = {
        "train/loss": report.loss,
        "train/gradient_norm": report.gradient_norm,
        "train/clean_accuracy": mean(shard.clean_accuracy for shard in shards),
        "train/adversarial_accuracy": 1 - mean(shard.fooled for shard in shards),
        "train/examples_per_second": examples / times.total,
        "train/staleness": float(report.step - min(shard.version for shard in shards)),
        "cost/forwards_per_example": sum(shard.forwards for shard in shards) / examples,
        "cost/backwards_per_example": sum(shard.backwards for shard in shards) / examples,
        "cost/backwards_saved_per_example": sum(shard.saved for shard in shards) / examples,
        "seconds/step": times.total,
        "seconds/waiting_for_attackers": times.waited,
        "seconds/attack": sum(shard.seconds for shard in shards),
        "seconds/attack_cpu": sum(shard.cpu_seconds for shard in shards),
        "seconds/update": report.seconds,
        "seconds/update_cpu": report.cpu_seconds,
        "train/fallbacks": float(len(report.notes)) if report.notes else math.nan,
        **{f"train/{name}": value for name, value in report.figures.items()},
    }
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def printable(name: str) -> str:
    """A label as a part of a metric's name: `B_B` for `B&B`. MLflow takes letters, digits, `_`, `-` and `.`."""
    return "".join(c if c.isalnum() or c in "-._" else "_" for c in name)


def mean(values: Iterable[float]) -> float:
    """The mean of those that are not NaN; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
