"""A real local Ray cluster, started once for all tests that need one, and a check that it leaves nothing behind."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
os.environ.pop("RAY_ADDRESS", None)

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

STORE = 256 << 20  # bytes of a node's object store
QUICK = {  # a node that is gone is noticed within a second or two
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


def ray_processes(folder: str) -> list[psutil.Process]:
    """Live processes whose command line names the cluster's folder: a whole path, as a word may stand in anybody's."""
    assert Path(folder).is_absolute()
    alive = (p for p in psutil.process_iter(["cmdline", "status"]) if p.info["status"] != psutil.STATUS_ZOMBIE)
    return [process for process in alive if folder in " ".join(process.info["cmdline"] or [])]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head with eight logical CPUs, so that tests can have several workers at a time; tests may add nodes to it."""
    folder = tempfile.mkdtemp(prefix="sparring", dir="/tmp")
    head = {"num_cpus": 8, "temp_dir": folder, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster()
    try:
        with pytest.MonkeyPatch.context() as patch:
            Path(folder, "ray").mkdir()
            patch.setenv("RAY_TMPDIR", folder)  # where the address is noted for whoever starts Ray without one
            made.add_node(**head, _system_config=QUICK)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR, namespace="sparring")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and ray_processes(folder):
            time.sleep(0.1)
        left = ray_processes(folder)
        for process in left:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, [p.cmdline() for p in left]
