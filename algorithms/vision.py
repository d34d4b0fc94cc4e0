"""The one place from which torchvision is imported: when it is needed, and whatever build of torch is beside it.

Torchvision from the package index is built for CUDA. Beside a CPU-only torch its compiled operators cannot be loaded,
and its import fails with `operator torchvision::nms does not exist`. Declaring the two operators that the import asks
for mends that: models, datasets and transforms need none of them.
"""

from __future__ import annotations

import functools
import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

ASKED_FOR = ("nms", "qnms")  # operators that `import torchvision` looks up
declared: list[torch.library.Library] = []  # a declaration lasts as long as its library object


@functools.cache
def torchvision() -> ModuleType:
    """The package `torchvision`, imported at the first call. Raises ModuleNotFoundError, with the remedy."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "torchvision is not installed: `pip install torchvision`, in the release for your torch"
        )
    if not has_operators(Path(spec.origin).parent):
        declare_operators()
    return importlib.import_module("torchvision")


def has_operators(folder: Path) -> bool:
    """Whether torch knows torchvision's operators, after an attempt to load the ones compiled in `folder`."""
    for library in folder.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:  # built for another torch
            continue
    return all(hasattr(torch.ops.torchvision, name) for name in ASKED_FOR)


def declare_operators() -> None:
    """Tells torch the signatures of the operators, without any code behind them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ASKED_FOR:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declared.append(library)
