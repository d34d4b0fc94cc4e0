"""Checkpoints on disk: the trainer's state and the snapshots still attacked, as one safetensors file with a checksum.

A file is written beside its name, flushed and renamed, so there is never half of one; one that was damaged later is
named, set aside, and the one before it is used. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as unpack
from safetensors.numpy import save as pack

from orchestrator.folders import write_atomically
from orchestrator.listener import Listener

Bytes = NDArray[np.uint8]
KEPT = 2  # newest checkpoints that stay
_DIGEST = 32  # bytes of SHA-256 behind the tensors


class Checkpoint(NamedTuple):
    """All that a run needs to go on."""

    step: int  # updates made
    trainer: Bytes  # Trainer.state
    snapshots: dict[int, Bytes]  # by version: those that attacks still to come will see
    recipe: str  # digest of what decides the bits; another recipe's checkpoint is never used


@final
class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, listener: Listener) -> None:
        self.folder, self.listener = folder, listener

    def write(self, checkpoint: Checkpoint) -> Path:
        """Writes a checkpoint and drops all but the newest. Raises OSError if the disk is full; older ones stay."""
        path = self.folder / f"step-{checkpoint.step:08d}.safetensors"
        write_atomically(path, encode(checkpoint))
        for old in self.paths()[:-KEPT]:
            old.unlink()
        return path

    def newest(self, recipe: str) -> Checkpoint | None:
        """The newest undamaged checkpoint; None if there is none. Raises ValueError for another recipe's."""
        for path in reversed(self.paths()):
            try:
                checkpoint = decode(path)
            except ValueError as error:
                self.listener.say(f"{error}; it is set aside and the one before it is used")
                path.replace(path.with_suffix(".damaged"))
                continue
            if checkpoint.recipe != recipe:
                raise ValueError(
                    f"{path}: made by another recipe, so the run cannot go on from it; start a new one, or undo it"
                )
            return checkpoint
        return None

    def paths(self) -> list[Path]:
        """All checkpoint files, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))


def encode(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as bytes: a safetensors file followed by its SHA-256."""
    tensors = {f"snapshot/{version}": data for version, data in checkpoint.snapshots.items()}
    about = {"step": str(checkpoint.step), "recipe": checkpoint.recipe}
    content = pack({"trainer": checkpoint.trainer, **tensors}, metadata=about)
    return content + hashlib.sha256(content).digest()


def decode(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises ValueError, naming the file and what is wrong, if it is damaged."""
    content = path.read_bytes()
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError(f"{path}: damaged or cut short (its checksum does not match)")
    try:
        tensors = unpack(body)
        about = _metadata(body)
        snapshots = {int(name[9:]): data for name, data in tensors.items() if name.startswith("snapshot/")}
        return Checkpoint(int(about["step"]), tensors["trainer"], snapshots, about["recipe"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint ({error})") from error


def _metadata(body: bytes) -> Mapping[str, str]:
    """The header's own entries: safetensors begins with its length and JSON."""
    length = int.from_bytes(body[:8], "little")
    about: Mapping[str, str] = json.loads(body[8 : 8 + length])["__metadata__"]
    return about
