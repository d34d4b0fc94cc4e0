"""Diagnoses of small trained networks: who masks is caught, who does not is cleared, and nothing is done twice."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as pack
from torch import nn
from typer.testing import CliRunner

from orchestrator import diagnosis
from orchestrator.budgets import load_budget
from orchestrator.cli import app
from orchestrator.config import resolve
from orchestrator.diagnoses import stages
from orchestrator.diagnoses.outcome import Diagnosis, screen
from orchestrator.diagnoses.settings import affordable
from orchestrator.diagnosis import diagnose, examine
from orchestrator.evaluations.targets import network_of
from orchestrator.folders import write_atomically, write_json
from orchestrator.listener import Silent
from orchestrator.loop import Interrupted
from orchestrator.terminal import as_text
from tests.linear import Calls, Watch
from tests.masked import EPS, MASKS, Masked, adaptive, plain, robust, target
from workers.cache import open_split
from workers.datasets.digits import Digits
from workers.prober import ProbeTask

BUDGET = """
about = "seconds"
examples = 64
signs = 16
growth = 2
[reference]
label = "PGD-20"
attack = {name = "pgd", steps = 20, step_size = "eps/8"}
[substitute]
images = 512
epochs = 4
pupil = {name = "cnn4", width = 4, hidden = 16}
[[rivals]]
label = "FGSM"
attack = "fgsm"
[[rivals]]
label = "starts"
attack = {name = "pgd", steps = 20, step_size = "eps/8", restarts = 3}
[[rivals]]
label = "margin"
attack = {name = "pgd", steps = 20, step_size = "eps/8", loss = "margin"}
[[rivals]]
label = "scaled"
attack = {name = "through", view = "scaled", attack = {name = "pgd", steps = 20, step_size = "eps/8"}}
[[rivals]]
label = "Square"
attack = {name = "square", steps = 200}
[[rivals]]
label = "transfer"
attack = {name = "transfer", attack = {name = "pgd", steps = 20, step_size = "eps/8"}}
[[rivals]]
label = "averaged"
needs = "random"
attack = {name = "through", view = {name = "averaged", draws = 4}, attack = {name = "pgd", step_size = "eps/4"}}
[[rivals]]
label = "through the step sizes"
needs = "adaptive"
attack = {name = "through", view = "solver", attack = {name = "pgd", step_size = "eps/4"}}
"""
FEW = BUDGET[: BUDGET.index('[[rivals]]\nlabel = "starts"')]
SLOW = FEW.replace("signs = 16", "signs = 8") + BUDGET[BUDGET.index('[[rivals]]\nlabel = "averaged"') :]
ONE = BUDGET[: BUDGET.index("[substitute]")] + '[[rivals]]\nlabel = "FGSM"\nattack = "fgsm"\n'


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / "cache"))


def written(folder: Path, text: str = BUDGET) -> str:
    path = folder / "budget.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take seconds; one test draws them."""
    monkeypatch.setattr(diagnosis.page, "figures_of", lambda *_: {})


def made(folder: Path, network: nn.Module, mask: str = "", budget: str = BUDGET) -> Diagnosis:
    torch.manual_seed(0)  # what a network draws that draws random numbers
    return examine(target(folder / "run", network, Masked(mask=mask)), written(folder, budget), Silent())


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("network", [plain, robust])
def test_honest_networks_are_cleared(network: Callable[[], nn.Module], tmp_path: Path) -> None:
    found = made(tmp_path, network())
    assert not found.masked
    assert found.verdict.startswith("honest: none of 13 checks")
    assert found.worst.value <= found.claimed.value < found.clean.value
    assert found.growth.points[-1].accuracy.value == 0
    accuracies = [point.accuracy.value for point in found.growth.points]
    assert accuracies == sorted(accuracies, reverse=True)


CAUGHT = {  # at least by these checks
    "quantised": {"zero gradients", "ascent", "Square", "the whole box"},
    "saturated": {"zero gradients", "ascent", "Square", "margin", "scaled"},
    "noisy": {"repetition", "finite differences", "averaged"},
    "stiff": {"finite differences", "step sizes", "companions"},
}


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("mask", CAUGHT)
def test_masked_networks_are_caught(mask: str, tmp_path: Path) -> None:
    slow = mask == "stiff"
    found = made(tmp_path, adaptive() if slow else MASKS[mask](plain()), mask, SLOW if slow else BUDGET)
    flagged = {finding.check for finding in found.findings if finding.flagged}
    assert flagged >= CAUGHT[mask]
    assert found.verdict.startswith(f"masked: {len(flagged)} of ")
    assert ("averaged" in {stand.attack for stand in found.stands}) == (mask == "noisy")
    assert ("through the step sizes" in {stand.attack for stand in found.stands}) == (mask == "stiff")
    assert [grid.iterations for grid in found.steps] == ([0, 1, 20, 100] if mask == "stiff" else [])
    assert ("times of the steps" in found.page.read_text(encoding="utf-8")) == (mask == "stiff")
    if mask in ("quantised", "saturated"):
        assert found.claimed.value > 0.8
        assert found.worst.value < 0.2


def test_a_finished_diagnosis_is_a_page_a_table_and_json(tmp_path: Path) -> None:
    found = made(tmp_path, MASKS["saturated"](plain()), "saturated", ONE)
    text = found.page.read_text(encoding="utf-8")
    for said in (found.verdict, "zero gradients", "no gradient on 100.0 %", "an honest model shows", 'class="flagged"'):
        assert said in text
    assert text.count("<svg") == 5
    assert not [word for word in ("http://", "src=", "@import") if word in text.replace("http://www.w3.org", "")]
    shown = as_text(screen(found))
    assert "zero gradients" in shown
    assert "FLAG" in shown
    assert json.loads(json.dumps(found.plain(), allow_nan=False))["masked"] is True
    assert Diagnosis.read(found.folder) == found
    with np.load(found.folder / "columns.npz") as columns:
        assert len(columns["PGD-20/index"]) == 64
        assert columns["zero_gradients/shows"].all()
    assert not (found.folder / "parts").exists()
    names = found.metrics()
    assert names["diagnosis/budget/masked"] == 1
    assert names["diagnosis/budget/share/zero_gradients"] == 1


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Interrupts diagnoses, and counts what they ask of attackers."""
    watched = Watch()

    @contextlib.contextmanager
    def opened(workers: Any, work: Any, listener: Any, *, training: bool) -> Iterator[Calls]:
        backend = Calls(work)
        backend.watch = watched
        yield backend

    monkeypatch.setattr(diagnosis, "open_backend", opened)
    return watched


SHORT = (
    BUDGET[: BUDGET.index('[[rivals]]\nlabel = "starts"')] + BUDGET[BUDGET.index('[[rivals]]\nlabel = "transfer"') :]
)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("after", [1, 5, 10])
def test_interrupted_and_resumed_is_uninterrupted(watched: Watch, tmp_path: Path, after: int) -> None:
    whole = made(tmp_path, plain(), budget=SHORT)
    everything = len(watched.tasks)
    again = tmp_path / "again"
    again.mkdir()
    watched.tasks.clear()
    watched.shards = after
    with pytest.raises(KeyboardInterrupt):
        made(again, plain(), budget=SHORT)
    watched.tasks.clear()
    watched.shards = math.inf
    resumed = made(again, plain(), budget=SHORT)
    assert len(watched.tasks) == everything - after
    assert resumed.findings == whole.findings
    assert (resumed.folder / "columns.npz").read_bytes() == (whole.folder / "columns.npz").read_bytes()
    watched.tasks.clear()
    assert made(again, plain(), budget=SHORT) == resumed
    assert not watched.tasks


@pytest.mark.usefixtures("drawn")
def test_a_damaged_shard_is_made_again_and_a_request_to_stop_is_heard(watched: Watch, tmp_path: Path) -> None:
    run, budget = target(tmp_path / "run", plain(), Masked()), written(tmp_path, ONE)
    answers = iter([False, False, True])
    with pytest.raises(Interrupted, match="same command"):
        examine(run, budget, Silent(), stop=lambda: next(answers))
    first, *others = sorted(tmp_path.rglob("parts/*.npz"))
    assert len(others) == 2
    first.write_bytes(first.read_bytes()[:-50])
    watched.tasks.clear()
    examine(run, budget, Silent())
    again = [task for task in watched.tasks if isinstance(task, ProbeTask) and task.label == "PGD-20"]
    assert [task.indices[0] for task in again] == [0]


def test_radii_grow_to_the_whole_box(tmp_path: Path) -> None:
    run, split = target(tmp_path / "run", plain(), Masked()), open_split(Digits(), "test")
    for norm, eps, box in (("linf", 0.3, 1.0), ("l2", 1.0, 8.0), ("l1", 4.0, 64.0)):
        chosen = load_budget("quick", norm, eps)  # type: ignore[arg-type]
        settings = diagnosis.settings_of(run._replace(recipe=run.recipe), chosen, network_of(run, split), split, {})
        settings = type(settings)(**{**vars(settings), "norm": norm, "eps": eps})
        radii = stages.radii(settings)
        assert radii[-1] == box
        assert all(b / a > 1 for a, b in zip([eps, *radii], radii, strict=False))


def test_a_costly_model_is_shown_fewer_examples(tmp_path: Path) -> None:
    split = open_split(Digits(), "test")
    budget = load_budget(written(tmp_path), "linf", EPS)
    assert budget.passes == 0
    cheap = load_budget("quick", "linf", EPS)
    assert affordable(cheap, plain(), split) == cheap.examples
    assert affordable(dataclasses.replace(cheap, work=1e9), plain(), split) == 32


def test_budgets_that_come_with_sparring_load_and_leave_out_what_a_norm_has_not() -> None:
    for name in ("quick", "full"):
        labels = {norm: [rival.label for rival in load_budget(name, norm, 0.3).rivals] for norm in ("linf", "l1")}  # type: ignore[arg-type]
        assert set(labels["linf"]) - set(labels["l1"]) == {"SPSA"}
    with pytest.raises(ValueError, match="no diagnosis in l0"):
        load_budget("quick", "l0", 5)
    with pytest.raises(ValueError, match="no budget is called 'quik'; did you mean 'quick'"):
        load_budget("quik", "linf", 0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE.replace('"FGSM"', '"PGD-20"'), "'PGD-20' is there twice"),
        (ONE.replace('{name = "pgd", steps = 20, step_size = "eps/8"}', '"ddn"'), "one within a radius eps"),
        (ONE.replace('"fgsm"', '"fgsn"'), r"rivals\[0\].attack.* no attack is called 'fgsn'"),
        (ONE.replace("signs = 16", "signs = 0"), "signs: a number of examples"),
    ],
)
def test_errors_in_budgets_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_budget(written(tmp_path, text), "linf", 0.3)


@pytest.mark.usefixtures("drawn")
def test_the_command_says_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = target(tmp_path / "runs" / "mine", plain(), Masked())
    write_json(run.folder.recipe, {**resolve(run.recipe), "model": {"name": "cnn4", "width": 8, "hidden": 32}})
    write_atomically(run.folder.model, pack(dict(run.weights)))
    typed = ["diagnose", "mine", "--budget", written(tmp_path, ONE), "--eps", "1/10", "--examples", "40", "--quiet"]
    done = CliRunner().invoke(app, typed, prog_name="sparring")
    assert done.exit_code == 0, done.output
    assert "\nhonest: none of 8 checks shows masked gradients; " in done.output
    told = json.loads(CliRunner().invoke(app, [*typed, "--json"], prog_name="sparring").stdout)
    assert told["masked"] is False
    assert told["examples"] == 40
    assert told["eps"] == 0.1
    assert [entry["check"] for entry in told["findings"]][-1] == "the whole box"
    assert "No sign of masked gradients" in run.folder.report.read_text(encoding="utf-8")
    assert diagnose("mine", budget=written(tmp_path, ONE), eps=0.1, examples=40).masked is False
    wrong = CliRunner().invoke(app, ["diagnose", "mine", "--norm", "l0"], prog_name="sparring")
    assert wrong.exit_code == 2
    assert "no diagnosis in l0" in wrong.output
