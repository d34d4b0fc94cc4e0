"""A real local Ray cluster, started once for all tests that need one, and a check that it leaves nothing behind."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
os.environ.pop("RAY_ADDRESS", None)

import psutil
import pytest
import ray


def ray_processes(folder: str) -> list[psutil.Process]:
    """Live processes whose command line names the cluster's folder."""
    alive = (p for p in psutil.process_iter(["cmdline", "status"]) if p.info["status"] != psutil.STATUS_ZOMBIE)
    return [process for process in alive if folder in " ".join(process.info["cmdline"] or [])]


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Eight logical CPUs, so that tests can have several workers at a time."""
    folder = tempfile.mkdtemp(prefix="sparring", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=8,
        object_store_memory=256 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="sparring",
        _temp_dir=folder,
    )
    try:
        yield
    finally:
        ray.shutdown()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and ray_processes(folder):
            time.sleep(0.1)
        left = ray_processes(folder)
        for process in left:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, [p.cmdline() for p in left]
