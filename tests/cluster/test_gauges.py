"""What Prometheus reads of a run, and the dashboard that shows it."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
import ray

from orchestrator.gauges import COUNTED, SHOWN, exported
from orchestrator.recipe import Evaluation, Recipe, Tracking, Train, Validation, Workers
from orchestrator.run import train
from tests.told import until

ROOT = Path(__file__).parents[2]


def test_the_dashboard_shows_every_gauge_and_counter_and_no_other() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"ray_(sparring_\w+)", " ".join(queries)))
    assert asked == {exported(name) for name in SHOWN} | {f"{exported(name)}_total" for name in COUNTED}
    assert all('run=~"$run"' in query for query in queries)
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["source", "run"]


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_prometheus_reads_the_last_step_of_a_run(tmp_path: Path) -> None:
    recipe = Recipe(
        name="watched",
        train=Train(epochs=1),
        validation=Validation(share=0),
        evaluation=Evaluation(suite="demo", examples=8),
        workers=Workers(attackers=2, attacker_cpus=0.5, trainer_cpus=0.5),
        tracking=Tracking(folder=str(tmp_path)),
    )
    run = train(recipe)
    (port,) = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    (address,) = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        lines = [line for line in text.splitlines() if line.startswith("ray_sparring_") and 'run="watched"' in line]
        return {line.partition("{")[0].removeprefix("ray_"): float(line.rpartition(" ")[2]) for line in lines}

    until(lambda: {exported("step"), f"{exported('examples')}_total"} <= set(read()))
    shown = read()
    assert shown[exported("step")] == 11
    assert shown[exported("workers/attackers")] == 2
    assert shown[exported("train/loss")] == pytest.approx(run.metrics["train/loss"])
    assert shown[f"{exported('examples')}_total"] == 11 * 128
    assert shown[f"{exported('workers/trainer_starts')}_total"] == run.metrics["workers/trainer_starts"] == 1
