"""A diagnosis finds the same on a cluster as in one process, bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator import diagnosis
from orchestrator.diagnosis import examine
from orchestrator.folders import RunFolder
from orchestrator.listener import Silent
from orchestrator.recipe import Workers
from tests.masked import Masked, plain, target
from tests.test_diagnosis import SHORT, written

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_a_diagnosis_on_a_cluster_is_the_one_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis.page, "figures_of", lambda *_: {})
    run, budget = target(tmp_path / "near", plain(), Masked()), written(tmp_path, SHORT)
    near = examine(run, budget, Silent())
    recipe = dataclasses.replace(run.recipe, workers=Workers(attackers=2, attacker_cpus=0.5))
    far = examine(run._replace(recipe=recipe, folder=RunFolder(tmp_path / "far")), budget, Silent())
    assert far.folder.name == near.folder.name
    assert far.findings == near.findings
    assert (far.folder / "columns.npz").read_bytes() == (near.folder / "columns.npz").read_bytes()
