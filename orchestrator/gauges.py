"""What Prometheus reads of a run while it trains: a gauge for each metric of the last step, served by Ray.

Every node of a Ray cluster has a port that Prometheus reads; Ray puts `ray_` before a name. deploy/grafana.json shows
them. What only ever grows (requeues, restarts) is a gauge too, since the run counts it already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

from ray.util.metrics import Gauge

PREFIX = "sparring_"
SHOWN = {  # by the metric's name
    "step": "updates made",
    "train/loss": "mean loss of the last step's examples",
    "train/adversarial_accuracy": "share of the last step's adversarial examples that are classified correctly",
    "train/examples_per_second": "examples of the last step over its time",
    "train/staleness": "updates that the attacked parameters are old",
    "seconds/step": "time of the last step",
    "seconds/waiting_for_attackers": "time that the last step waited for its shards",
    "seconds/attack": "time of the last step's attacks, summed over attackers",
    "seconds/update": "time of the last update in the trainer",
    "workers/attackers": "attackers that have started",
    "workers/idle_share": "share of the attackers' time spent idle",
    "workers/shards_in_flight": "shards that attackers have",
    "workers/requeues": "shards that went to another attacker because theirs was lost, so far",
    "workers/restarts": "attackers that Ray restarted, so far",
    "workers/replacements": "attackers that were replaced, so far",
    "workers/hangs": "attackers that gave no answer in time, so far",
    "workers/retries": "shards that were tried again because code raised, so far",
    "workers/given_again": "shards that an idle attacker got as well because theirs was slow, so far",
    "workers/shards_lost": "steps whose finished shards went with their node, so far",
    "workers/trainer_starts": "starts of the trainer, so far",
}


@final
class Gauges:
    """The gauges of this process."""

    def __init__(self) -> None:
        self.gauges = {name: Gauge(exported(name), description=text, tag_keys=("run",)) for name, text in SHOWN.items()}

    def show(self, run: str, metrics: Mapping[str, float]) -> None:
        """Sets those that are known of a run's last step."""
        for name, gauge in self.gauges.items():
            if name in metrics:
                gauge.set(metrics[name], tags={"run": run})


def exported(name: str) -> str:
    """A metric's name as Prometheus has it, without Ray's prefix."""
    return PREFIX + re.sub(r"\W", "_", name)
