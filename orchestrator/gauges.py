"""What Prometheus reads of a run while it trains, served by Ray: gauges of the last step, and counters of what adds up.

Every node of a Ray cluster has a port that Prometheus reads; Ray puts `ray_` before a name, and `_total` behind a
counter's. deploy/grafana.json shows them. A counter begins at 0 with each process of the run, as Prometheus expects.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import final

from ray.util.metrics import Counter, Gauge

PREFIX = "sparring_"
SHOWN = {  # gauges, by the metric's name
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
}
COUNTED = {  # counters; their metrics say how often it has happened to this process so far
    "examples": "adversarial examples that were learnt from",
    "workers/requeues": "shards that went to another attacker because theirs was lost",
    "workers/restarts": "attackers that Ray restarted",
    "workers/replacements": "attackers that were replaced",
    "workers/hangs": "attackers that gave no answer in time",
    "workers/retries": "shards that were tried again because code raised",
    "workers/given_again": "shards that an idle attacker got as well because theirs was slow",
    "workers/shards_lost": "steps whose finished shards went with their node",
    "workers/trainer_starts": "starts of the trainer",
}


@final
class Gauges:
    """The gauges and counters of this process."""

    def __init__(self) -> None:
        self.gauges = {name: Gauge(exported(name), text, tag_keys=("run",)) for name, text in SHOWN.items()}
        self.counters = {name: Counter(exported(name), text, tag_keys=("run",)) for name, text in COUNTED.items()}
        self.counted: defaultdict[str, float] = defaultdict(float)

    def show(self, run: str, metrics: Mapping[str, float]) -> None:
        """Tells those that are known of a run's last step."""
        for name, gauge in self.gauges.items():
            if name in metrics:
                gauge.set(metrics[name], tags={"run": run})
        for name, counter in self.counters.items():
            more = metrics.get(name, 0.0) - self.counted[name]
            if more > 0:  # Ray takes no others
                counter.inc(more, tags={"run": run})
                self.counted[name] += more


def exported(name: str) -> str:
    """A metric's name as Prometheus has it, without what Ray puts before and behind it."""
    return PREFIX + re.sub(r"\W", "_", name)
