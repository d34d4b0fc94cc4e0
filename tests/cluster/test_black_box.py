"""An evaluation with a surrogate gives the same rows on a cluster as in one process; its weights go by reference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.evaluation import evaluate
from orchestrator.recipe import Workers
from tests.test_black_box import run_at

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_a_surrogate_on_a_cluster_changes_no_row(tmp_path: Path) -> None:
    asked = dataclasses.replace(run_at(tmp_path / "a", 1).evaluation, surrogate="b", examples=300)
    run_at(tmp_path / "b", 2)
    far = evaluate(tmp_path / "a", asked, workers=Workers(attackers=2, attacker_cpus=0.5))
    rows = pq.read_table(far.parquet)
    far.parquet.unlink()  # so that it is made again
    near = evaluate(tmp_path / "a", asked)
    assert near.folder == far.folder
    for name, column in pq.read_table(near.parquet).to_pydict().items():
        np.testing.assert_array_equal(column, rows[name].to_pylist())  # to which NaN is NaN
