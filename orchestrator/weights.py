"""A model's weights on disk: safetensors, in a run's folder or in a checkpoint. Nothing in them can run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from torch import Tensor, nn

from orchestrator.checkpoints import Checkpoints, decode
from orchestrator.folders import RunFolder, write_atomically
from orchestrator.listener import Silent
from orchestrator.recipe import Recipe
from workers import runtime
from workers.cache import open_split
from workers.messages import Snapshot


def save_weights(folder: RunFolder, recipe: Recipe, taken: Snapshot) -> None:
    """Writes the finished model of a run."""
    write_atomically(folder.model, pack(runtime.unflatten(taken.data, fresh_model(recipe).state_dict())))


def load_weights(target: RunFolder | Path) -> dict[str, Tensor]:
    """The model's tensors, by name: of a finished run, of an unfinished one's newest checkpoint, or of a file.

    A file is a checkpoint or a `model.safetensors`. Raises ValueError if there is none or it is damaged.
    """
    if isinstance(target, RunFolder):
        paths = [target.model] if target.model.is_file() else Checkpoints(target.checkpoints, Silent()).paths()[-1:]
        if not paths:
            raise ValueError(f"{target.path}: no weights yet; the run has made no checkpoint")
        target = paths[0]
    if not target.is_file():
        raise ValueError(f"{target}: no such file of weights")
    try:
        if target.name.startswith("step-"):
            return _kept(unpack(decode(target).trainer.tobytes()))
        return unpack(target.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{target}: not a file of weights, or damaged ({error})") from error


def _kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model in a trainer's state: its parameters and buffers, the averaged ones where there are."""
    model = {name[6:]: t for name, t in state.items() if name.startswith("model/")}
    return model | {name[8:]: t for name, t in state.items() if name.startswith("average/")}


def fresh_model(recipe: Recipe) -> nn.Module:
    """The recipe's network with its initial weights, on the CPU."""
    split = open_split(recipe.dataset, "train")
    return runtime.build(recipe.model, split.shape, len(split.classes), recipe.seed)


def load_model(target: RunFolder | Path, recipe: Recipe) -> nn.Module:
    """The recipe's network with a run's weights or a file's, in evaluation mode, on the CPU."""
    model = fresh_model(recipe)
    model.load_state_dict(load_weights(target))
    return model.eval()
