"""What makes a worker's arithmetic repeatable: seeds that are counters, fixed threads, models as flat bytes."""

from __future__ import annotations

import copy
import ctypes
import platform
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algorithms import convolution, pooling
from algorithms.models import Model, Shape
from algorithms.team import Companions
from workers.messages import Precision, Snapshot, Work

STREAMS = ("weights", "split", "order", "augment", "attack", "loss", "evaluate")  # purposes of random numbers
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # torch's names for instructions: two of x86, two of ARM
KEPT = {-3: 2**25, -1: 2**31 - 1}  # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in bytes, the most that each may be


def seed_of(run_seed: int, stream: str, *key: int) -> int:
    """A seed in [0, 2**63) for one purpose and place of a run. It is a counter: there is no random state to save."""
    sequence = np.random.SeedSequence((run_seed, STREAMS.index(stream), *key))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def rng_of(run_seed: int, stream: str, *key: int) -> torch.Generator:
    """A torch generator, on the CPU, for one purpose and place of a run."""
    return torch.Generator().manual_seed(seed_of(run_seed, stream, *key))


class Fingerprint(NamedTuple):
    """What decides the last bits of a worker's arithmetic."""

    torch: str
    device: str
    threads: int


def prepare(device: str, threads: int) -> torch.device:
    """Fixes the threads of this process, forbids operations that give other bits each time, and keeps its memory."""
    torch.set_num_threads(threads)
    keep_memory()
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which imports the compiler: seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a sixth of the time
    if device == "cuda":
        torch.backends.cudnn.benchmark = False
    return torch.device(device)


def keep_memory() -> None:
    """Has the allocator keep what is freed: the next pass asks for it again, and from the kernel it comes page by page.

    The most that the process has needed stays with it. Without glibc nothing is changed.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        for parameter, value in KEPT.items():
            allocator.mallopt(parameter, value)


def fingerprint(device: torch.device) -> Fingerprint:
    """This process's: unlike workers must not share a deterministic run."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return Fingerprint(torch.__version__, kind, torch.get_num_threads())


def _processor() -> str:
    """The processor's kind and the instructions that torch's kernels go by."""
    half = "with" if quickest("cpu") == "bfloat16" else "without"
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {half} bfloat16"


def build(model: Model, shape: Shape, classes: int, seed: int) -> nn.Module:
    """A fresh network whose initial weights depend on `seed` alone; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        return model.build(shape, classes)


def companions(work: Work, shape: Shape, classes: int) -> Companions:
    """What the run's defense needs beside its model, fresh; initial weights depend on the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(work.seed, "weights", 1))
        return work.defense.companions(shape, classes, work.batch)


def flatten(tensors: Mapping[str, Tensor]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """All tensors' bytes, one after the other in their order."""
    parts = [t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() for t in tensors.values()]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def unflatten(data: np.ndarray[tuple[int], np.dtype[np.uint8]], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `flatten` was given, as copies like those of `like`. Raises ValueError if sizes differ."""
    sizes = [t.numel() * t.element_size() for t in like.values()]
    if sum(sizes) != data.nbytes:
        raise ValueError(f"a snapshot of {data.nbytes} bytes does not fit a model of {sum(sizes)} bytes")
    tensors, start = {}, 0
    for (name, tensor), size in zip(like.items(), sizes, strict=True):
        piece = torch.from_numpy(data[start : start + size].copy())
        tensors[name] = piece.view(tensor.dtype).view(tensor.shape).to(tensor.device)
        start += size
    return tensors


def snapshot(model: nn.Module, version: int) -> Snapshot:
    """The model's parameters and buffers after `version` updates."""
    return Snapshot(version, flatten(model.state_dict()))


def load(model: nn.Module, taken: Snapshot) -> None:
    """Copies a snapshot into a model of the same architecture."""
    model.load_state_dict(unflatten(taken.data, model.state_dict()))


def arranged(model: nn.Module) -> nn.Module:
    """The model, made quick: channels of convolutions last in memory, and layers with quick derivatives."""
    for layers in (convolution, pooling):
        layers.quicken(model.modules())
    return model.to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload] # left out of the stub


def quickest(device: str) -> Precision:
    """What examples are made in most quickly, as a rule: bfloat16 where the processor multiplies in it.

    float32 where bfloat16 would be imitated, which is slower, and on a GPU, where it has not been measured.
    """
    known = torch.cpu.get_capabilities()
    able = torch.backends.mkldnn.is_available() and any(known.get(name) for name in BFLOAT16)
    return "bfloat16" if device == "cpu" and able else "float32"


def lowered(model: nn.Module, precision: Precision) -> nn.Module:
    """The model itself, or a copy in bfloat16, channels last: several times as fast where the processor has it."""
    if precision == "float32":
        return model
    return arranged(copy.deepcopy(model).bfloat16())


def follow(opponent: nn.Module, model: nn.Module) -> None:
    """Copies the model's parameters and buffers into its `lowered` form."""
    if opponent is not model:
        opponent.load_state_dict(model.state_dict())
