"""Studies: what a file may say, which recipes follow from it, and a small one made from beginning to end."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path

import pytest

from orchestrator import reproduction, several, tables
from orchestrator.annotation.sheet import Answer, NoneFellError, sheet_of
from orchestrator.config import RecipeError
from orchestrator.evaluations.targets import find
from orchestrator.folders import RunFolder
from orchestrator.history import History
from orchestrator.listener import Listener, Silent
from orchestrator.reproduction import entries_of, reproduce
from orchestrator.study import Column, Labelling, Line, cells_of, chosen, load_study
from orchestrator.tables import Entry

SMALL = """
about = "Two small networks."
paper = "Nobody 1999, Table 0"
recipe = "small.toml"
set = ["train.batch=64"]

[evaluations.attacked]
suite = "quick"
eps = 0.1

[evaluations.black_box]
suite = "quick"
eps = 0.1
surrogate = "plain"

[[columns]]
title = "clean"
of = "attacked"
figure = "accuracy/clean"
scale = 100

[[columns]]
title = "black box"
of = "black_box"
figure = "accuracy/PGD-20"
scale = 100

[diagnoses.checked]
budget = "tiny.toml"
eps = 0.1

[[columns]]
title = "flags"
of = "checked"
figure = "flags"

[[columns]]
title = "gradients"
figure = "cost/backwards_per_example"
take = "mean"

[[rows]]
title = "plain"
published = {clean = 99.5}

[[rows]]
title = "robust"
set = ["defense.name=adversarial", "defense.attack.steps=2"]

[budgets.smoke]
seeds = [3, 5]
set = ["train.epochs=1"]
examples = 8
"""

LABELS = """
[labels.seen]
suite = "quick"
reader = "robust"

[[columns]]
title = "read as changed"
of = "seen"
figure = "reader/changed"

[[columns]]
title = "people"
of = "seen"
figure = "changed"
"""

RADII = """
[[columns]]
title = "attacked"
of = "attacked"
figure = "accuracy/worst_case"

[[columns]]
title = "worst"
of = "attacked"
figure = "accuracy/worst_case"
at = [0.05, 0.07, 0.1, 0.15]
"""

TINY = """
about = "one attack"
signs = 2
growth = 1
rivals = []
[reference]
label = "FGSM"
attack = "fgsm"
"""
RECIPE = """
model = {name = "mlp", hidden = [8]}
[train]
epochs = 30
[validation]
share = 0.0
[workers]
backend = "inline"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(RECIPE)
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "study.toml").write_text(SMALL)
    return tmp_path / "study.toml"


def test_changes_follow_one_another_study_row_budget_command_line(small: Path) -> None:
    study = load_study(small)
    cells = cells_of(study, small, study.budgets["smoke"], ("train.batch=32",))
    assert [(cell.row.title, cell.seed) for cell in cells] == [("plain", 3), ("plain", 5), ("robust", 3), ("robust", 5)]
    assert {cell.recipe.train.epochs for cell in cells} == {1}
    assert {cell.recipe.train.batch for cell in cells} == {32}
    assert [cell.recipe.seed for cell in cells] == [3, 5, 3, 5]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('of = "attacked"', 'of = "atacked"', "did you mean 'attacked'"),
        ('of = "checked"', 'of = "chekced"', "did you mean 'checked'"),
        ("[diagnoses.checked]", "[diagnoses.attacked]", "names that nothing else has"),
        ("examples = 8", 'examples = 8\nshorter = {black_bx = "demo"}', "did you mean 'black_box'"),
        ("{clean = 99.5}", "{cleen = 99.5}", "no column is called 'cleen'"),
        ('title = "robust"', 'title = "plain"', "a title of its own"),
        ("[budgets.smoke]", "[budgets.smok]", "did you mean 'smoke'"),
        ("seeds = [3, 5]", "seeds = []", "one whole number or more"),
        ('take = "mean"', 'take = "average"', "'last', 'mean', 'total' or 'largest'"),
        ('take = "mean"', 'over = "plane"', "did you mean 'plain'"),
        ('take = "mean"', 'minus = "plane"', "did you mean 'plain'"),
        ('take = "mean"', 'over = "plain"\nminus = "plain"', "not both"),
        ('take = "mean"', "until = 0", "above 0 and at most 1"),
        ('take = "mean"', "at = 0.1", "a radius for an accuracy of an evaluation alone"),
        ('figure = "flags"', 'figure = "flags"\nat = 0.1', "a radius for an accuracy of an evaluation alone"),
        ("scale = 100", "scale = 100\nat = [-1]", "at: a radius"),
        ("scale = 100", "scale = 100\nat = [0.1, 0.1]", "a title of its own"),
        ("[diagnoses.checked]", '[labels.seen]\nsuite = "quick"\nreader = "robusst"\n[diagnoses.checked]', "'robust'"),
        ("examples = 8", 'recipes = {robusst = "small.toml"}', "did you mean 'robust'"),
        ('title = "plain"', 'title = "plain"\nseed_shift = -1', "seed_shift"),
        ('"train.batch=64"', '"dataset.name=parquet", "dataset.folder=/etc"', "a path below the current folder"),
    ],
)
def test_what_is_wrong_in_a_study_is_said_in_one_line(small: Path, old: str, new: str, said: str) -> None:
    small.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(RecipeError, match=r"study\.toml") as caught:
        load_study(small)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_recipe_names_its_row(small: Path) -> None:
    small.write_text(SMALL.replace("steps=2", "stepps=2"))
    study = load_study(small)
    with pytest.raises(RecipeError, match=r"stepps.*row 'robust'"):
        cells_of(study, small, study.budgets["smoke"])


SPREAD = """
[[columns]]
title = "worst"
of = "attacked"
figure = "accuracy/worst_case"
at = [0.2, "1/4"]

[[columns]]
title = "PGD"
of = "attacked"
figure = "accuracy/PGD-20"
at = [0.2, "1/4"]
"""


def test_a_column_at_several_radii_is_a_column_each(small: Path) -> None:
    text = SMALL.replace("[diagnoses", f"{SPREAD}\n[diagnoses")
    small.write_text(text.replace("{clean = 99.5}", "{clean = 99.5, worst = [7.5, nan], PGD = [nan, 3]}"))
    study = load_study(small)
    found = [(column.title, column.at) for column in study.columns if column.at]
    assert found == [("worst, 0.2", 0.2), ("PGD, 0.2", 0.2), ("worst, 1/4", 0.25), ("PGD, 1/4", 0.25)]
    assert study.rows[0].published == {"clean": 99.5, "worst, 0.2": 7.5, "PGD, 1/4": 3}
    small.write_text(text.replace("{clean = 99.5}", "{worst = [7.5]}"))
    with pytest.raises(RecipeError, match=r"published.*a figure for each of 2 radii"):
        load_study(small)


def test_models_may_stand_side_by_side(small: Path) -> None:
    study = load_study(small)
    entries = {
        row: {column.title: Entry((float(number),), published) for number, column in enumerate(study.columns)}
        for row, published in (("plain", 1.5), ("robust", None))
    }
    made = tables.Reproduction(study, "smoke", (0,), entries, {"plain": ["a"], "robust": ["b"]}, Path(), "")
    turned = dataclasses.replace(made, study=dataclasses.replace(study, across="models"))
    assert tables.screen(made).row_count == 2
    assert tables.screen(turned).row_count == len(study.columns)
    page = tables.page(turned, [])
    assert page.columns == [("plain", 3), ("robust", 1)]
    assert page.rows[1] == ("black box", [("1.0", "1.5", "-0.5"), ("1.0",)])
    assert [title for title, _, _ in page.models] == ["plain", "robust"]


def test_a_cell_is_mean_spread_and_difference() -> None:
    entry = Entry((90.0, 92.0, 97.0), 95.0)
    assert entry.mean == 93.0
    assert entry.spread == pytest.approx(statistics.stdev([90, 92, 97]))
    assert entry.difference == pytest.approx(-2.0)
    assert Entry((), 95.0).difference is None
    assert Entry((1.0,), None).spread is None


def test_a_budget_may_take_other_recipes_and_a_row_other_seeds(small: Path) -> None:
    (small.parent / "other.toml").write_text(RECIPE.replace("[8]", "[4]"))
    text = SMALL.replace("examples = 8", 'recipes = {robust = "other.toml"}')
    small.write_text(text.replace('title = "robust"', 'title = "robust"\nseed_shift = 2'))
    study = load_study(small)
    cells = cells_of(study, small, study.budgets["smoke"])
    assert [(cell.seed, cell.recipe.seed) for cell in cells] == [(3, 3), (5, 5), (3, 5), (5, 7)]
    assert [cell.recipe.name for cell in cells] == ["small", "small", "other", "other"]


def test_figures_of_a_part_of_the_training_and_beside_another_rows(small: Path) -> None:
    study = load_study(small)
    columns = {
        "half way": Column(title="half way", figure="gap", until=0.5),
        "spent": Column(title="spent", figure="cost", take="total"),
        "saved": Column(title="saved", figure="cost", take="total", over="plain", scale=100),
        "less": Column(title="less", figure="cost", take="total", minus="plain", scale=100),
        "none": Column(title="none", figure="gap", minus="plain"),
    }
    study = dataclasses.replace(study, columns=tuple(columns.values()), rows=(study.rows[1], Line(title="plain")))
    found = {
        ("plain", 3): {"training": {"cost": [4.0, 4.0], "gap": [0.9, 0.8, 0.7, 0.6]}},
        ("robust", 3): {"training": {"cost": [1.0, 3.0], "gap": [0.5, 0.4, 0.3]}},
        ("plain", 5): {"training": {"cost": [10.0]}},
        ("robust", 5): {"training": {"cost": [7.0], "gap": [0.2]}},
    }
    entries = entries_of(study, study.rows[0], found, (3, 5))
    assert entries["spent"].ours == (4.0, 7.0)
    assert entries["saved"].ours == (50.0, 70.0)  # seed by seed, not of the means
    assert entries["less"].ours == (-400.0, -300.0)
    assert entries["none"].ours == pytest.approx((-0.3,))  # the other's was not measured for seed 5
    assert entries["half way"].ours == (0.4, 0.2)
    assert entries_of(study, study.rows[1], found, (3, 5))["half way"].ours == (0.8,)  # not measured for seed 5


def test_a_study_from_beginning_to_end(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small.write_text(SMALL.replace("[3, 5]", "[3]").replace("[diagnoses", f"{RADII}{LABELS}\n[diagnoses"))
    made = reproduce(small, "smoke")
    curve = [made.entries["robust"][f"worst, {eps}"].mean for eps in ("0.05", "0.1", "0.15")]
    assert curve == sorted([value for value in curve if value is not None], reverse=True)
    assert curve[1] == made.entries["robust"]["attacked"].mean
    assert not made.entries["robust"]["worst, 0.07"].ours  # where nothing was tried
    assert made.entries["plain"]["clean"].published == 99.5
    assert [len(made.entries[row]["black box"].ours) for row in ("plain", "robust")] == [1, 1]
    assert made.entries["robust"]["gradients"].mean == pytest.approx(2.0)
    assert [made.entries[row]["flags"].ours for row in ("plain", "robust")] == [(0.0,), (0.0,)]
    assert made.entries["plain"]["gradients"].mean == 0.0
    stored = json.loads((made.folder / "table.json").read_text())
    assert stored["rows"]["plain"]["clean"]["ours"] == list(made.entries["plain"]["clean"].ours)
    page = (made.folder / "study.html").read_text()
    assert "Nobody 1999, Table 0" in page
    assert page.count('<th scope="col">published</th>') == 1  # of the one column that the paper has
    assert tables.screen(made).row_count == 2
    assert made.entries["robust"]["read as changed"].ours == (1.0,)  # it takes its own images for what they are to it
    assert 0 <= (made.entries["plain"]["read as changed"].mean or 0) <= 1
    assert made.entries["plain"]["people"].ours == ()
    trained = {name: RunFolder(tmp_path / "runs" / name) for names in made.runs.values() for name in names}
    assert len(trained) == 2
    assert [len(list(run.evaluations.iterdir())) for run in trained.values()] == [2, 2]  # nothing but the study's own
    weights = {name: run.model.stat().st_mtime_ns for name, run in trained.items()}
    sheet = sheet_of(find(tmp_path / "runs" / made.runs["plain"][0]), "quick", "", 8)
    sheet.give("somebody", Answer(int(sheet.index[0]), int(sheet.adversarial[0]), 1.0))
    again = reproduce(small, "smoke")
    assert again.entries["plain"].pop("people").ours == (1.0,)  # what is known by now
    assert again.entries == {**made.entries, "plain": {k: v for k, v in made.entries["plain"].items() if k != "people"}}
    assert {name: run.model.stat().st_mtime_ns for name, run in trained.items()} == weights  # nothing is trained twice


def test_rows_are_chosen_by_how_their_titles_begin(small: Path) -> None:
    study = load_study(small)
    assert [row.title for row in chosen(study, ("ro",)).rows] == ["robust"]
    assert chosen(study, ()) == study
    longer = load_study(small.with_name("study.toml"))
    longer = dataclasses.replace(longer, rows=(*longer.rows, dataclasses.replace(longer.rows[0], title="robuster")))
    assert [row.title for row in chosen(longer, ("robust",)).rows] == ["robust"]
    assert [row.title for row in chosen(longer, ("robus",)).rows] == ["robust", "robuster"]
    with pytest.raises(ValueError, match="titles or their beginnings, not 'bust'; the study has: plain, robust"):
        chosen(study, ("plain", "bust"))


def test_a_budget_shortens_evaluations_and_diagnoses(small: Path) -> None:
    small.write_text(SMALL.replace("examples = 8", 'examples = 8\nshorter = {attacked = "demo", checked = "quick"}'))
    study = load_study(small)
    spent = study.budgets["smoke"]
    asked = reproduction.asked_of(study, 3, {("plain", 3): "runs/plain-1"}, spent)
    assert [(one.suite, one.examples, one.surrogate) for one in asked.values()] == [
        ("demo", 8, ""),
        ("quick", 8, "plain-1"),
    ]
    assert [one.budget for one in reproduction.examinations_of(study, spent).values()] == ["quick"]


def test_a_model_that_no_attack_fools_has_nothing_to_label(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise NoneFellError("PGD-20: no image of the first 8 fell")

    monkeypatch.setattr(reproduction, "find", lambda folder: folder)
    monkeypatch.setattr(reproduction, "sheet_of", nothing)
    task = reproduction.Task("runs/robust-1", {}, {}, {"seen": Labelling(suite="quick")}, [])
    monkeypatch.setattr(reproduction, "history", lambda _: History({}, {}))
    assert reproduction._measured(task, Silent()) == {"training": {}, "seen": {}}


def square(number: int, listener: Listener) -> int:
    return number * number


def test_two_at_a_time_find_the_same_in_the_same_order() -> None:
    numbers = [3, 1, 2]
    assert several.each("squares", square, numbers, 1, Silent()) == [9, 1, 4]
    assert several.each("squares", square, numbers, 2, Silent()) == [9, 1, 4]
