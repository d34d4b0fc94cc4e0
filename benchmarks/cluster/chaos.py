"""A run that is shot at: `python -m benchmarks.cluster.chaos [--json FILE]`, on two cores in some minutes.

Two hundred steps of digits. A random attacker is killed every ten steps, the trainer three times, the driver once; the
same command then goes on. At the end the weights are compared, bit for bit, with those of an undisturbed run in one
process, and MLflow is asked for every step. What a fault costs is the time until the next new step is recorded, less
the time that a step takes where nothing happens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psutil
from mlflow.tracking import MlflowClient

from orchestrator.config import load_recipe
from orchestrator.run import train

RECIPE = "recipes/digits-pgd.toml"
STEPS = 200
CHANGES = ["train.epochs=20", "train.batch=128", "train.lag=1", "train.checkpoint_every=10", "workers.attackers=3"]
CHANGES += ["validation.every=99", "evaluation.suite=demo", "evaluation.examples=32"]
TRAINER_AT = (45, 95, 155)  # steps; attackers are killed at 10, 20, 30 and so on
DRIVER_AT = 125
PATIENCE = 300.0  # seconds without a step


@dataclass(frozen=True)
class Fault:
    """One that was made."""

    what: str
    step: int  # recorded before it
    seconds: float  # until the next one was


class Shooting:
    """A driver, and who shoots at its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = (folder / "driver.log").open("ab")
        self.rng = random.Random(0)
        self.faults: list[Fault] = []
        self.start()

    def start(self) -> None:
        """The command, for the first time or again."""
        command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "train", RECIPE, *CHANGES]
        command.append(f"tracking.folder={self.folder / 'runs'}")
        self.driver = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def steps(self) -> list[float]:
        """When each step was recorded, seconds."""
        lines = [t for p in self.folder.glob("runs/*/records/records.jsonl") for t in p.read_text().splitlines()]
        bodies = [json.loads(line)["body"] for line in lines if '"axis":"step"' in line and line.endswith("}")]
        return [body["time"] / 1000 for body in bodies]

    def shoot(self, what: str) -> None:
        """Kills a process of a kind, and waits for the next step."""
        before = len(self.steps())
        if what == "driver":
            victim = psutil.Process(self.driver.pid)
        else:
            below = psutil.Process(self.driver.pid).children(recursive=True)
            there = [p for p in below if f"ray::{what.capitalize()}" in " ".join(p.cmdline())]
            if not there:
                return  # all of them are starting
            victim = self.rng.choice(there)
        began = time.time()
        victim.send_signal(signal.SIGKILL)
        if what == "driver":
            self.driver.wait()
            self.start()
        self.wait_for(before + 1)
        self.faults.append(Fault(what, before, time.time() - began))

    def wait_for(self, count: int) -> None:
        """Until so many steps are recorded, or the run is over."""
        deadline = time.monotonic() + PATIENCE
        while len(self.steps()) < count and self.driver.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no step for {PATIENCE:.0f} s; see {self.folder / 'driver.log'}")
            time.sleep(0.05)


def shot_at(folder: Path) -> Shooting:
    """The run to its end, under fire."""
    field = Shooting(folder)
    targets = dict.fromkeys(range(10, STEPS, 10), "attacker") | dict.fromkeys(TRAINER_AT, "trainer")
    for step, what in sorted((targets | {DRIVER_AT: "driver"}).items()):
        field.wait_for(step)
        field.shoot(what)
    if field.driver.wait(timeout=1800):
        raise RuntimeError(f"the run ended with {field.driver.returncode}; see {folder / 'driver.log'}")
    return field


def steps_in_mlflow(folder: Path) -> list[int]:
    """Of the only run."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("sparring")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return sorted(metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss"))


def table(field: Shooting) -> list[str]:
    """A row a kind of fault."""
    times = field.steps()
    hit = {fault.step for fault in field.faults}
    quiet = [b - a for i, (a, b) in enumerate(pairwise(times), 1) if i not in hit and i - 1 not in hit]
    usual = statistics.median(quiet)
    by_kind = defaultdict(list)
    for fault in field.faults:
        by_kind[fault.what].append(max(0.0, fault.seconds - usual))
    rows = [
        f"a step where nothing happens takes {usual:.2f} s (median)",
        "| killed | times | seconds lost each: median | most |",
    ]
    rows += ["| --- | --- | --- | --- |"]
    rows += [f"| {w} | {len(s)} | {statistics.median(s):.1f} | {max(s):.1f} |" for w, s in sorted(by_kind.items())]
    return rows


def main() -> None:
    """Runs both, compares, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.chaos", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write every fault here")
    chosen = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    print(f"load before: {os.getloadavg()}; folder {folder}", flush=True)
    began = time.monotonic()
    field = shot_at(folder)
    print(f"the run took {time.monotonic() - began:.0f} s", flush=True)
    whole = train(load_recipe(RECIPE, [*CHANGES, f"tracking.folder={folder / 'whole'}", "workers.backend=inline"]))
    (made,) = folder.glob("runs/*/model.safetensors")
    same = made.read_bytes() == whole.folder.model.read_bytes()
    recorded = steps_in_mlflow(folder / "runs")
    total = json.loads((made.parent / "plan.json").read_text())["steps"]
    print(f"same bits: {same}; MLflow has steps 0 to {total - 1} once each: {recorded == list(range(total))}")
    print("\n".join(table(field)))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(fault) for fault in field.faults], indent=2) + "\n")
    sys.exit(not (same and recorded == list(range(total))))


if __name__ == "__main__":
    main()
