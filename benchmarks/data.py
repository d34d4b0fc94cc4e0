"""The images that benchmarks are run on: MNIST where its Parquet files are at hand, else the bundled digits."""

from __future__ import annotations

import os
from pathlib import Path

from workers.datasets import Dataset
from workers.datasets.digits import Digits
from workers.datasets.parquet import Parquet

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def images() -> Dataset:
    """MNIST from the folder that BENCHMARK_MNIST names, or from the shared data beside the project."""
    folder = Path(os.environ.get("BENCHMARK_MNIST") or BESIDE)
    return Parquet(folder=str(folder)) if folder.is_dir() else Digits()
