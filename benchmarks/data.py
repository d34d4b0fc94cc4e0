"""The images that benchmarks are run on: MNIST where its Parquet files are at hand, else the bundled digits."""

from __future__ import annotations

import os
from pathlib import Path

from workers.datasets import Dataset
from workers.datasets.digits import Digits
from workers.datasets.parquet import Parquet

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def mnist() -> str:
    """The folder that BENCHMARK_MNIST names, or the shared data beside the project; empty where neither is there."""
    folder = Path(os.environ.get("BENCHMARK_MNIST") or BESIDE)
    return str(folder) if folder.is_dir() else ""


def images() -> Dataset:
    """MNIST where it is, else the digits."""
    return Parquet(folder=mnist()) if mnist() else Digits()
