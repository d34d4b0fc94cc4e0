"""Shared by all tests: one thread, so that results do not depend on the machine."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file stay in one process, for its fixtures; those that start Ray in another, which begins with them.

    So two processes, one of which waits for Ray most of the time, keep two cores busy, and there is one cluster.
    """
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)  # stable
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
