"""What a run on one machine survives: a full disk, damaged checkpoints, weights that are no numbers."""

from __future__ import annotations

import hashlib
import json
import math
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from orchestrator.backend import Inline
from orchestrator.checkpoints import Checkpoints, decode
from orchestrator.config import load_recipe
from orchestrator.loop import Interrupted, Loop
from orchestrator.run import train
from tests.told import Told
from tests.training import STEPS, WORK, Notes, bits
from workers.cache import open_split

ROOT = Path(__file__).parents[1]
RECIPE = """
train = {epochs = 1, checkpoint_every = 4}
model = {name = "mlp", hidden = [600, 500]}
validation = {share = 0}
workers = {backend = "inline"}
evaluation = {suite = "demo", examples = 8}
"""
ROOM = 3 << 19  # bytes that a file may have: enough for MLflow's database, too few for a checkpoint


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bits(Inline(WORK), tmp_path_factory.mktemp("reference"))


def interrupted_after(steps: int, folder: Path, every: int) -> None:
    notes = Notes()
    with pytest.raises(Interrupted):
        bits(Inline(WORK), folder, notes=notes, every=every, stop=lambda: len(notes.steps) == steps)


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut_short, flipped])
def test_a_damaged_checkpoint_costs_its_steps_and_no_bit(
    damage: Callable[[bytes], bytes], reference: str, tmp_path: Path
) -> None:
    interrupted_after(7, tmp_path, every=4)
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    told, notes = Told(), Notes()
    loop = loop_in(tmp_path, told)
    weights = loop.run(notes, told, 1000, lambda: False)
    assert notes.steps == list(range(4, STEPS))
    assert newest.name in told.sentences[0]
    assert "the one before it is used" in told.sentences[0]
    assert newest.with_suffix(".damaged").exists()
    assert digest(weights.data.tobytes()) == reference


def loop_in(folder: Path, told: Told) -> Loop:
    """The small training's loop, as `bits` makes it, with a listener that remembers."""
    return Loop(WORK, len(open_split(WORK.dataset, "train")), Inline(WORK), Checkpoints(folder, told), str(WORK))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("what", "after", "said"),
    [
        ("parameters", 4, r"step 5, shard 0: the loss is nan"),
        ("parameters", 5, r"step 6: \S+ is infinite or NaN; no checkpoint"),
        ("buffers", 4, r"step 6: \S+ is infinite or NaN; no checkpoint"),  # a training pass does not read them
    ],
)
def test_a_number_that_is_none_stops_the_run_and_spoils_no_checkpoint(
    what: str, after: int, said: str, reference: str, tmp_path: Path
) -> None:
    """As a bad memory would do it, in the middle of a run."""
    backend = Inline(WORK)

    def spoil(step: int) -> None:
        if step == after:
            tensors = getattr(backend.trainer.bench.model, what)()
            victim = [tensor for tensor in tensors if tensor.is_floating_point()][1]
            with torch.no_grad():
                victim.view(-1)[0] = math.nan

    with pytest.raises(FloatingPointError, match=said):
        bits(backend, tmp_path, notes=Notes(spoil), every=2)
    assert [decode(path).step for path in Checkpoints(tmp_path, Told()).paths()] == [2, 4]
    assert bits(Inline(WORK), tmp_path) == reference


def limited(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a process whose files may have ROOM bytes."""
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "train", str(path)]
    command.append(f"tracking.folder={folder}")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (ROOM, ROOM))
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=200)


def test_a_full_disk_is_said_and_the_same_command_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    stopped = limited(path, tmp_path / "full")
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    said = stopped.stderr.strip().splitlines()[-1]
    assert "step-00000004.safetensors: File too large; make room, and the same command goes on" in said
    assert not list((tmp_path / "full").rglob(".step*"))
    again, whole = (train(load_recipe(path, [f"tracking.folder={tmp_path / name}"])) for name in ("full", "roomy"))
    assert (again.resumed, whole.resumed) == (True, False)
    assert again.folder.model.read_bytes() == whole.folder.model.read_bytes()
    recorded = (again.folder.records / "records.jsonl").read_text().splitlines()
    steps = [json.loads(line)["body"]["step"] for line in recorded if '"axis":"step"' in line]
    assert steps == list(range(11))
