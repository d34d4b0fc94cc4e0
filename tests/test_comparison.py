"""Comparisons say "better" only where it is shown, drop nothing silently, and are one page that needs nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import mlflow
import pytest

from orchestrator import addresses, comparison
from orchestrator.comparison import Comparison, compare
from orchestrator.comparisons import charts, distributions
from orchestrator.comparisons.pairs import Pair, exact, holm
from orchestrator.comparisons.sides import Side
from orchestrator.recipe import Tracking
from tests.compared import EPS, converged, run_with, with_spectra
from workers.datasets.parquet import Parquet

GROUP = ("quick", "linf", EPS)


def test_mcnemars_test_by_hand() -> None:
    """Of 10 examples that differ one is lost: twice the chance of 0 or 1 heads in 10 throws, 2 (1 + 10) / 1024."""
    assert exact(9, 1) == pytest.approx(22 / 1024)
    assert exact(1, 9) == pytest.approx(22 / 1024)
    assert exact(0, 0) == exact(5, 5) == 1.0


def test_holms_correction_by_hand() -> None:
    """The smallest times three; the next times two, but not below the one before; the last as it is, likewise."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_pairs_interval_by_hand() -> None:
    """b = 20.5 and c = 5.5 of 102: 15 / 102, and 1.96 sqrt(26 - 225 / 102) / 102 around it."""
    low, high = Pair("a", "b", 100, 20, 5, 0.01).interval
    assert (low + high) / 2 == pytest.approx(15 / 102)
    assert (high - low) / 2 == pytest.approx(1.959964 * math.sqrt(26 - 225 / 102) / 102, rel=1e-6)


@pytest.fixture
def made(tmp_path: Path) -> Comparison:
    """A base where 20 of 40 stand, a run that is better, one that differs by chance, and one on other data."""
    (tmp_path / "images").mkdir()
    run_with(tmp_path / "base", range(20, 40))
    run_with(tmp_path / "better", range(32, 40), seed=1)
    run_with(tmp_path / "alike", [*range(21, 40), 3], seed=2)
    run_with(tmp_path / "elsewhere", range(10), dataset=Parquet(folder=str(tmp_path / "images")))
    names = ["base", "better", "alike", "elsewhere"]
    return compare(names, Tracking(folder=str(tmp_path)))


def test_better_is_said_only_where_it_is_shown(made: Comparison) -> None:
    better, alike, elsewhere = made.pairs[GROUP]
    assert (better.wins, better.losses, better.verdict) == (12, 0, "better")
    assert better.chance == pytest.approx(2 * exact(12, 0))
    assert (alike.wins, alike.losses, alike.verdict) == (1, 1, "no difference shown")
    assert elsewhere.verdict == "other data: parquet, not digits"


def test_only_what_differs_is_shown(made: Comparison) -> None:
    differing = dict(made.differing)
    assert differing["seed"] == ["0", "1", "2", "0"]
    assert "train.epochs" not in differing
    assert not [key for key in differing if key.startswith("tracking")]


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    run_with(tmp_path / "whole", range(5))
    damaged = run_with(tmp_path / "damaged", range(5))
    damaged.recipe.write_text('{"defense": ')
    (damaged.evaluations / "quick-0123456789ab" / "outcome.json").write_text("{}")
    damaged.summary.unlink()
    made = compare(["whole", "damaged"], Tracking(folder=str(tmp_path)))
    said = " ".join(made.sides[1].problems)
    for problem in ("train --resume damaged", "evaluate damaged", "quick-0123456789ab", "recipe.json cannot be read"):
        assert problem in said
    assert comparison.cells(made, GROUP, intervals=False)[1][1] == "not measured"
    assert made.sides[1].state == "stopped after 10 of 0 steps"


def test_distributions_are_drawn_where_runs_have_them(tmp_path: Path) -> None:
    """Of the last epoch's four conditions the median is the lower of the two in the middle; the layers are ranked."""
    first, second, neither = (run_with(tmp_path / name, range(5)) for name in ("first", "second", "neither"))
    converged(first, 1, [9.0, 9.0])
    converged(first, 2, [0.3, 0.1, 0.4, 0.2])
    converged(second, 2, [0.0, 0.0])
    with_spectra(second, fc=[0.5, 2.0, 1.0])
    made = compare([run.name for run in (first, second, neither)], Tracking(folder=str(tmp_path)))
    (fosc,) = distributions.convergence(made.sides)
    assert [(row[0], row[1], row[2]) for row in fosc.rows] == [("first", "4", "0.2"), ("second", "2", "0")]
    assert max(fosc.figure["data"][0]["x"]) == pytest.approx(0.4, rel=0.05)
    (spectrum,) = distributions.spectra(made.sides)
    assert spectrum.title == "Singular values of fc"
    assert spectrum.rows == [("second", "2", "1", "0.5")]
    (drawn,) = spectrum.figure["data"]
    assert (drawn["x"], drawn["y"]) == ([1.0, 2.0, 3.0], [2.0, 1.0, 0.5])
    assert drawn["line"]["color"] != fosc.figure["data"][0]["line"]["color"]  # a run keeps its colour in every chart


def test_the_same_curve_of_two_suites_says_of_which(made: Comparison) -> None:
    side = made.sides[0]
    (outcome,) = side.outcomes.values()
    assert {line["name"] for line in lines_of(side)} == {f"{side.name}, worst case", f"{side.name}, DDN"}
    second = dataclasses.replace(outcome, suite="demo", curves=outcome.curves[:1])
    both = side._replace(outcomes={**side.outcomes, ("demo", "linf", EPS): second})
    names = [line["name"] for line in lines_of(both)]
    assert names == [f"{side.name}, worst case (quick)", f"{side.name}, worst case (demo)", f"{side.name}, DDN"]


def lines_of(side: Side) -> list[dict[str, Any]]:
    return [line for chart in charts.robustness([side]) for line in chart.figure["data"]]


def test_damaged_distributions_are_said(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", range(5))
    converged(run, 1, [0.1, 0.2])
    with_spectra(run, fc=[1.0])
    (file,) = run.convergence.glob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    run.spectra.write_text("{")
    (side,) = compare(["run"], Tracking(folder=str(tmp_path))).sides
    assert side.fosc is None
    assert side.spectra == {}
    assert [problem.startswith("damaged, and left out: ") for problem in side.problems] == [True, True]


def test_a_name_that_is_no_run_is_refused(tmp_path: Path) -> None:
    run_with(tmp_path / "whole", range(5))
    with pytest.raises(ValueError, match="runs there: whole"):
        compare(["whole", "hole"], Tracking(folder=str(tmp_path)))


def test_the_page_holds_every_run_and_chart(made: Comparison, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    comparison.write_page(made, page)
    text = page.read_text(encoding="utf-8")
    for side in made.sides:
        assert side.name in text
    figures = text.split('<script type="application/json"')[1:]
    drawn = [json.loads(part.split(">", 1)[1].split("</script>", 1)[0]) for part in figures]
    titles = [figure["layout"]["xaxis"]["title"]["text"] for figure in drawn]
    assert len(drawn) == 2 + 4  # two norms; loss, two accuracies, gradients
    assert titles.count("updates") == 4
    first = drawn[0]["data"][0]
    assert first["x"] == [0.0, 0.1, 0.3]
    assert first["y"] == [100.0, 100.0, 50.0]
    assert "default-src 'none'" in text


def test_the_terminal_gets_a_table_an_evaluation_and_one_of_differences(made: Comparison) -> None:
    tables = comparison.screens(made)
    assert [table.title for table in tables] == ["quick, linf radius 0.3", "What differs between the recipes"]
    assert tables[0].row_count == 4


def test_the_page_goes_to_mlflow_as_one_run_however_often(tmp_path: Path) -> None:
    for number, name in enumerate(("plain", "robust")):
        run_with(tmp_path / name, range(5 + number))
    where = Tracking(folder=str(tmp_path))
    made = compare(["plain", "robust"], where)
    page, kept = tmp_path / "page.html", tmp_path / "kept"
    kept.mkdir()
    for _ in range(2):
        comparison.write_page(made, page)
        comparison.publish(made, page, where)
    client = mlflow.MlflowClient(addresses.resolve(where))
    (run,) = client.search_runs([client.get_experiment_by_name("sparring").experiment_id])
    assert run.data.tags["sparring.kind"] == "comparison"
    assert run.data.tags["mlflow.note.content"] == "plain | robust"
    assert run.info.status == "FINISHED"
    copy = client.download_artifacts(run.info.run_id, "page.html", str(kept))
    assert Path(copy).read_bytes() == page.read_bytes()
