"""Checkpoints: whole or not used, named when damaged, and never anything that runs code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orchestrator.checkpoints import KEPT, Checkpoint, Checkpoints, decode, encode
from orchestrator.listener import Silent
from tests.told import Heard


def checkpoint(step: int) -> Checkpoint:
    data = np.arange(100, dtype=np.uint8)
    return Checkpoint(step, data, {step - 1: data[::-1].copy(), step - 2: data[:7]}, "recipe")


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path, Silent()).write(checkpoint(12))
    back = decode(path)
    assert (back.step, back.recipe) == (12, "recipe")
    assert np.array_equal(back.trainer, checkpoint(12).trainer)
    assert {v: d.tobytes() for v, d in back.snapshots.items()} == {
        v: d.tobytes() for v, d in checkpoint(12).snapshots.items()
    }


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, Silent())
    for step in (3, 100, 20):
        checkpoints.write(checkpoint(step))
    assert [decode(path).step for path in checkpoints.paths()] == [20, 100]
    assert len(checkpoints.paths()) == KEPT
    newest = checkpoints.newest("recipe")
    assert newest is not None
    assert newest.step == 100


@pytest.mark.parametrize("damage", ["cut short", "a flipped byte", "empty", "another file"])
def test_a_damaged_one_is_named_and_the_one_before_it_used(damage: str, tmp_path: Path) -> None:
    heard = Heard()
    checkpoints = Checkpoints(tmp_path, heard)
    checkpoints.write(checkpoint(1))
    path = checkpoints.write(checkpoint(2))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    bad = {"cut short": bytes(content[:-50]), "a flipped byte": bytes(content), "empty": b"", "another file": b"x" * 99}
    path.write_bytes(bad[damage])
    newest = checkpoints.newest("recipe")
    assert newest is not None
    assert newest.step == 1
    assert path.name in heard.said[0]
    assert not path.exists()


def test_every_single_flipped_byte_is_noticed(tmp_path: Path) -> None:
    content = encode(checkpoint(5))
    path = tmp_path / "step-00000005.safetensors"
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        path.write_bytes(bytes(flipped))
        with pytest.raises(ValueError, match="damaged or cut short"):
            decode(path)


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", Silent()).newest("recipe") is None
