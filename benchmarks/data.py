"""The images that benchmarks are run on: MNIST where its Parquet files are at hand, else the bundled digits."""

from __future__ import annotations

import os
from pathlib import Path

from workers.datasets import Dataset
from workers.datasets.digits import Digits
from workers.datasets.parquet import Parquet

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def folder(name: str) -> str:
    """What BENCHMARK_MNIST or BENCHMARK_CIFAR10 names, or the data beside the project; empty where neither is there."""
    found = Path(os.environ.get(f"BENCHMARK_{name.upper()}") or BESIDE / name)
    return str(found) if found.is_dir() else ""


def mnist() -> str:
    """The folder of MNIST, if there is one."""
    return folder("mnist")


def images() -> Dataset:
    """MNIST where it is, else the digits."""
    return Parquet(folder=mnist()) if mnist() else Digits()
