"""The command itself on Ray, as a process that is killed, stopped and told to stop: the same bits, each step once."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator import pulse
from orchestrator.config import load_recipe
from orchestrator.run import train
from tests.cluster.conftest import ray_processes
from tests.test_run import steps_recorded
from tests.told import PATIENCE

ROOT = Path(__file__).parents[2]
STEPS = 40
RECIPE = """
train = {epochs = 4, checkpoint_every = 3, lag = 1}
model = {name = "cnn4", width = 4, hidden = 8}
defense = {name = "adversarial", attack = {name = "pgd", norm = "l2", eps = 0.5, step_size = 0.1, steps = 30}}
validation = {share = 0.1, every = 9}
evaluation = {suite = "demo", examples = 8}
"""
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


class Driver:
    """`sparring train` in a process group of its own."""

    def __init__(self, recipe: Path, folder: Path) -> None:
        self.folder = folder
        self.cluster = ""  # the folder of its Ray cluster
        command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "train", str(recipe)]
        self.log = folder.with_suffix(".log").open("w+")
        self.process = subprocess.Popen(
            [*command, f"tracking.folder={folder}"], cwd=ROOT, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def steps(self) -> int:
        """How many steps it has recorded."""
        return sum(path.read_text().count('"axis":"step"') for path in self.folder.glob("*/records/records.jsonl"))

    def workers(self, name: str) -> list[psutil.Process]:
        """The processes of its actors of this class."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        said = " ".join(part for process in below for part in process.cmdline())
        self.cluster = re.findall(r"/tmp/sparring-\w+", said)[0]
        return [process for process in below if f"ray::{name}" in " ".join(process.cmdline())]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        code = self.process.wait(timeout=PATIENCE)
        return code, self.said()

    def clear(self) -> None:
        """Ends what is left of it, and of its cluster if that was ever looked for; a killed driver cannot."""
        if self.process.poll() is None:
            self.process.kill()
        if self.cluster:
            for process in ray_processes(self.cluster):
                process.kill()
            shutil.rmtree(self.cluster, ignore_errors=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Driver]]:
    """Gives the command, once more at each call; what is left of them goes with the test."""
    recipe, folder = tmp_path / "recipe.toml", tmp_path / "runs"
    recipe.write_text(RECIPE)
    made: list[Driver] = []

    def given() -> Driver:
        made.append(Driver(recipe, folder))
        return made[-1]

    yield given
    for driver in made:
        driver.clear()


def killed(driver: Driver) -> None:
    """SIGKILL: Ray ends the actors."""
    driver.wait_until(lambda: driver.steps() >= 8)
    actors = driver.workers("Attacker") + driver.workers("Trainer")
    driver.process.send_signal(signal.SIGKILL)
    assert driver.end()[0] == -signal.SIGKILL
    assert len(actors) == 3
    assert not psutil.wait_procs(actors, timeout=PATIENCE)[1]


def beheaded(driver: Driver) -> None:
    """SIGKILL of Ray's control process: the run says so, and stops with a checkpoint before Ray ends everything."""
    driver.wait_until(lambda: driver.steps() >= 11)
    attackers = driver.workers("Attacker")
    (head,) = [p for p in psutil.Process(driver.process.pid).children(recursive=True) if p.name() == "gcs_server"]
    for attacker in attackers:
        attacker.suspend()  # so that the run is not over before the loss is noticed
    head.kill()
    driver.wait_until(lambda: "give the same command: it goes on from the last step" in driver.said())
    time.sleep(pulse.GONE)
    for attacker in attackers:
        attacker.resume()
    code, said = driver.end()
    assert (code, "is gone" in said) == (1, True), said
    assert f"the same command goes on after step {driver.steps()} of {STEPS}" in said
    assert not psutil.wait_procs(ray_processes(driver.cluster), timeout=PATIENCE)[1]


def hurried(driver: Driver) -> None:
    """Ctrl-C twice."""
    driver.wait_until(lambda: driver.steps() >= 16)
    for attacker in driver.workers("Attacker"):
        attacker.suspend()  # so that the step does not end by itself
    driver.process.send_signal(signal.SIGINT)
    driver.wait_until(lambda: "once more to stop at once" in driver.said())
    driver.process.send_signal(signal.SIGINT)
    code, said = driver.end()
    assert (code, "stopped at once; the same command goes on" in said) == (130, True), said


def patient(driver: Driver) -> None:
    """Ctrl-C once."""
    driver.wait_until(lambda: driver.steps() >= 22)
    driver.process.send_signal(signal.SIGINT)
    code, said = driver.end()
    assert code == 3
    assert "with a checkpoint; the same command goes on from there" in said


def test_a_driver_that_is_killed_beheaded_and_stopped_twice_ends_with_the_same_bits(
    start: Callable[[], Driver], tmp_path: Path
) -> None:
    for end in (killed, beheaded, hurried, patient):
        driver = start()
        end(driver)
        assert "Traceback" not in driver.said()

    recipe, folder = tmp_path / "recipe.toml", tmp_path / "runs"
    finished = train(load_recipe(recipe, [f"tracking.folder={folder}", "workers.backend=inline"]))
    whole = train(load_recipe(recipe, [f"tracking.folder={tmp_path / 'whole'}", "workers.backend=inline"]))
    assert (finished.resumed, whole.resumed) == (True, False)
    assert finished.folder.model.read_bytes() == whole.folder.model.read_bytes()
    assert steps_recorded(folder) == list(range(STEPS))
    assert json.loads(finished.folder.summary.read_text())["metrics"]["train/loss"] > 0
