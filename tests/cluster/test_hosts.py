"""A run over three hosts with networks of their own: one is cut off in the middle and comes back; the same bits."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import load_recipe
from orchestrator.run import train
from tests.cluster.hosts import Host, hosts, permitted
from tests.test_run import steps_recorded

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RECIPE = """
train = {epochs = 16, checkpoint_every = 5, lag = 1}
model = {name = "cnn4", width = 4, hidden = 8}
defense = {name = "adversarial", attack = {name = "pgd", norm = "l2", eps = 0.5, step_size = 0.2, steps = 5}}
validation = {share = 0.1, every = 99}
evaluation = {suite = "demo", examples = 8}
workers = {attackers = 2}
"""
STEPS = 160
DRIVER = """
import sys, time
from pathlib import Path
from orchestrator.config import load_recipe
from orchestrator.run import train
class Slow:
    begin = end = lambda *about: None
    def advance(self, stage, done, note=""):
        time.sleep(0.0 if Path(sys.argv[1]).exists() else 0.5)
    def say(self, message):
        print(message, flush=True)
train(load_recipe(sys.argv[2], sys.argv[3:]), listener=Slow())
"""  # half a second a step, until a file is there
QUICK = {  # the head notices within some seconds that a host is gone
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
REJOIN = "while true; do {ray} start --block --address={head} --num-cpus=1 {rest}; sleep 1; done"
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    return own | token | QUICK | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start_ray(there: list[Host], where: dict[str, str], folder: Path) -> str:
    """A head on the first host, which alone has room for the trainer, and a worker on each other one."""
    head, *workers = there
    rest = ["--object-store-memory=100000000", "--disable-usage-stats"]
    address = f"{head.address}:6379"
    command: list[str | Path] = [BIN / "ray", "start", "--head", "--block", f"--node-ip-address={head.address}"]
    command += ["--port=6379", "--num-cpus=1", '--resources={"trainer": 1}', "--include-dashboard=false", *rest]
    head.inside(command, where, folder / "head.log")
    for worker in workers:
        loop = REJOIN.format(ray=BIN / "ray", head=address, rest=f"--node-ip-address={worker.address} {' '.join(rest)}")
        worker.inside(["bash", "-c", loop], where, folder / f"worker{worker.number}.log")
    return address


def recorded(folder: Path, name: str) -> list[float]:
    """All that a run has recorded of a metric so far."""
    lines = [line for path in folder.glob("*/records/records.jsonl") for line in path.read_text().splitlines()]
    values = [json.loads(line)["body"].get("values", {}) for line in lines if f'"{name}"' in line and line[-1] == "}"]
    return [value[name] for value in values if name in value]


@pytest.mark.skipif(not permitted(), reason="needs root, iproute2 and leave to make namespaces")
def test_a_host_that_is_cut_off_and_comes_back_changes_no_bit(tmp_path: Path) -> None:
    recipe, folder = tmp_path / "recipe.toml", tmp_path / "runs"
    recipe.write_text(RECIPE)
    where = environment()

    def wait_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "driver.log").read_text()
            time.sleep(0.1)

    with hosts(3) as there:
        address = start_ray(there, where, tmp_path)
        up = ["bash", "-c", f"until {BIN / 'ray'} status; do sleep 1; done"]
        assert there[0].inside(up, where, tmp_path / "up.log").wait(180) == 0
        command = [sys.executable, "-c", DRIVER, tmp_path / "hurry", recipe, f"tracking.folder={folder}"]
        driver = there[0].inside([*command, f"workers.address={address}"], where, tmp_path / "driver.log")
        wait_until(lambda: recorded(folder, "workers/attackers")[-1:] == [2.0])
        there[1].cut_off()
        wait_until(lambda: recorded(folder, "workers/attackers")[-1] == 1.0)
        alone = len(recorded(folder, "train/loss"))
        wait_until(lambda: len(recorded(folder, "train/loss")) >= alone + 3)
        there[1].connect()
        wait_until(lambda: recorded(folder, "workers/attackers")[-1] == 2.0)
        (tmp_path / "hurry").touch()
        assert driver.wait(300) == 0, (tmp_path / "driver.log").read_text()

    (made,) = folder.glob("*/model.safetensors")
    whole = train(load_recipe(recipe, ["workers.backend=inline", f"tracking.folder={tmp_path / 'whole'}"]))
    assert made.read_bytes() == whole.folder.model.read_bytes()
    assert steps_recorded(folder) == list(range(STEPS))
    assert recorded(folder, "workers/trainer_starts") == [1.0]
