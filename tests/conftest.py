"""Shared by all tests: one thread, so that results do not depend on the machine, and who runs which test."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

torch.set_num_threads(1)

CLUSTER = "tests/cluster/"  # the folder of all tests that start Ray
STUDIES = "tests/test_studies.py"  # each takes seconds, and no two share anything


class Scheduling(LoadScopeScheduling):
    """Tests of a file stay in one process, for its fixtures, and all that start Ray in one, which has one cluster."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(CLUSTER):
            return CLUSTER
        return nodeid if nodeid.startswith(STUDIES) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """So two processes, one of which waits for Ray most of the time, keep two cores busy."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that start Ray come first: they take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(CLUSTER))  # stable
