"""Plots show the figures that they are given; a run's page is whole, needs nothing, and escapes what users write."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from orchestrator import image_plots, plots, reports
from orchestrator.config import resolve
from orchestrator.evaluations import figures
from orchestrator.evaluations.figures import Curve, Point, Row, Share
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.parts import rows_of, write_images, write_rows
from orchestrator.folders import RunFolder, write_json
from orchestrator.history import History, history, thinned
from orchestrator.recipe import Recipe, Train
from orchestrator.spool import Spool
from tests.compared import MEASURED
from workers.judge import Judged, Kept

EVIL = "<script>alert('1')</script>&\"x"
VOID = {"meta", "link", "br", "img", "input", "hr"}


def share(value: float) -> Share:
    return Share(value, value - 0.05, value + 0.05)


CURVES = (
    Curve("worst <case>", "linf", 100, False, (Point(0.0, share(0.9)), Point(0.1, share(0.6)), Point(0.2, share(0.3)))),
    Curve("ddn", "l2", 80, True, (Point(0.0, share(0.9)), Point(0.7, share(0.5)))),
    Curve("fab", "l2", 80, True, (Point(0.0, share(0.9)), Point(0.6, share(0.4)))),
)


def test_robust_accuracy_draws_its_points() -> None:
    figure = plots.robust_accuracy(CURVES, ("linf", 0.1))
    left, right = figure.axes
    (curve, mark) = left.lines
    assert curve.get_xydata().tolist() == [[0.0, 90.0], [0.1, 60.0], [0.2, 30.0]]
    assert list(mark.get_xdata()) == [0.1, 0.1]
    assert [line.get_xydata()[-1].tolist() for line in right.lines] == [[0.7, 50.0], [0.6, 40.0]]
    assert {line.get_drawstyle() for line in right.lines} == {"steps-post"}
    assert len({to_hex(line.get_color()) for line in right.lines}) == 2
    assert left.get_ylabel() == "robust accuracy (%)"
    assert "pixels are in [0, 1]" in left.get_xlabel()
    assert left.get_ylim() == (0, 100)


def test_training_curves_put_losses_left_and_accuracies_right() -> None:
    series = {"train/loss": [(1, 2.0), (2, 1.5)], "validation/robust_accuracy": [(2, 0.25)]}
    left, right = plots.training_curves(series).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 1.5]]
    assert right.lines[0].get_xydata().tolist() == [[2, 25.0]]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("updates", "loss", "accuracy (%)")


def test_the_training_plots_have_nothing_of_another_unit() -> None:
    points = [(1.0, 0.5), (2.0, 0.25)]
    names = ("train/loss", "cost/loss_passes_per_example", "fosc/correlation_with_loss", "validation/robust_accuracy")
    losses, accuracies = (str(plot) for plot in reports.training_of(History(dict.fromkeys(names, points), {})))
    assert "train/loss" in losses
    assert "passes" not in losses
    assert "correlation" not in losses
    assert "robust_accuracy" in accuracies


def test_a_figure_of_several_panels_may_have_the_width_of_the_page() -> None:
    assert plots.svg(plots.robust_accuracy(CURVES), "two").startswith('<svg class="broad" ')


def examples(channels: int, count: int = 3) -> list[image_plots.Example]:
    generator = np.random.default_rng(0)
    clean = generator.random((count, channels, 4, 4), np.float32)
    adversarial = (clean + 0.1 * generator.uniform(-1, 1, clean.shape)).clip(0, 1).astype(np.float32)
    adversarial[-1] = clean[-1]
    return [
        image_plots.Example(c, a, "7", "7", "7" if i else "1")
        for i, (c, a) in enumerate(zip(clean, adversarial, strict=True))
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_shows_clean_perturbation_and_adversarial(channels: int) -> None:
    given = examples(channels)
    (axes,) = image_plots.image_grid(given, "title").axes
    assert len(axes.images) == 9
    shown = [np.asarray(image.get_array()) for image in axes.images[::3]]
    clean, delta, adversarial = (picture.reshape(4, 4, channels) for picture in shown)
    np.testing.assert_array_equal(clean, np.moveaxis(given[0].clean, 0, -1))
    np.testing.assert_array_equal(adversarial, np.moveaxis(given[0].adversarial, 0, -1))
    change = np.moveaxis(given[0].adversarial - given[0].clean, 0, -1)
    np.testing.assert_allclose((delta - 0.5) * 2 * np.abs(change).max(), change, atol=1e-6)
    captions = [text.get_text() for text in axes.texts]
    assert captions[1::4] == ["7 \u2713", f"up to {np.abs(change).max():.3g}", "1 \u2717"]
    assert captions[3::4] == ["7 \u2713", "none", "7 \u2713"]


def test_files_are_whole_and_repeat() -> None:
    figure = plots.robust_accuracy(CURVES[:1])
    assert plots.png(figure)[:8] == b"\x89PNG\r\n\x1a\n"
    assert plots.png(figure) == plots.png(plots.robust_accuracy(CURVES[:1]))
    text = plots.svg(figure, 'a "plot" & more')
    assert text == plots.svg(plots.robust_accuracy(CURVES[:1]), 'a "plot" & more')
    assert text.startswith('<svg role="img" aria-label="a &quot;plot&quot; &amp; more"')
    assert "currentColor" in text
    assert plots.INK not in text
    assert "var(--series-0, #0072B2)" in text
    assert "worst &lt;case&gt;" in text
    other = plots.svg(plots.robust_accuracy(CURVES[:1]), "another")
    assert not ids(text) & ids(other)


def test_dollar_signs_are_no_formulas() -> None:
    odd = "$x_{$ \\frac $"
    curve = dataclasses.replace(CURVES[0], attack=odd)
    assert odd in plots.svg(plots.robust_accuracy([curve]), "a")
    named = [example._replace(predicted=odd) for example in examples(1, 2)]
    assert odd in plots.svg(image_plots.image_grid(named, odd), "b")
    assert odd in plots.svg(plots.training_curves({odd: [(1, 1.0)]}), "c")


def ids(text: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a recipe, records of 10 updates and 2 epochs, and an evaluation."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "a-run")
    recipe = Recipe(name="x", defense=Adversarial(attack=PGD(eps=0.25)), train=Train(epochs=2, batch=64))
    write_json(run.recipe, resolve(recipe))
    with Spool(run.records) as spool:
        spool.describe("tag", "git.branch", EVIL)
        for step in range(10):
            spool.metrics("step", step, {"train/loss": 2.0 - 0.1 * step, "train/clean_accuracy": 0.05 * step})
            if step % 5 == 4:
                spool.metrics("epoch", step // 5, {"validation/robust_accuracy": 0.1 * step})
        spool.metrics("evaluations/demo", 0, {"demo/accuracy/clean": 0.5})
    evaluated(run.evaluations / "demo-0123456789ab", EVIL)
    return run


def evaluated(folder: Path, attack: str) -> None:
    """An evaluation of two examples; the second falls."""
    two = np.arange(2)
    numbers: dict[str, Any] = dict.fromkeys(MEASURED, np.zeros(2))
    images = np.random.default_rng(0).random((2, 2, 1, 4, 4), np.float32)
    kept = Kept(index=two, clean=images[0], adversarial=images[1])
    judged = Judged(
        index=two,
        label=two,
        predicted=two,
        predicted_adv=np.zeros(2, np.int64),
        success=two == 1,
        confidence=np.ones(2),
        confidence_adv=np.ones(2),
        forwards=two,
        backwards=two,
        certified=np.full(2, np.nan),
        margin=np.full(2, np.nan),
        kept=kept,
        **numbers,
    )
    table = (
        Row("clean", 2, figures.wilson(2, 2), "together", 0.0, 0.0, None, None),
        Row(attack, 2, figures.wilson(1, 2), "alone", 3.0, 2.5, "l2", 0.75),
        Row("worst case", 2, figures.wilson(1, 2), "together", 0.0, 0.0, None, None),
    )
    outcome = Outcome(
        run="a-run",
        suite="demo",
        norm="linf",
        eps=0.3,
        examples=2,
        table=table,
        curves=CURVES,
        shown=attack,
        classes=("zero", EVIL),
        folder=folder,
    )
    write_rows(outcome.parquet, rows_of(judged, attack, 0.3))
    write_images(outcome.images, kept)
    outcome.write()


class Reader(HTMLParser):
    """Checks that every element is closed, and gathers text and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attributes if k in ("href", "src", "xlink:href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data} "


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def page(folder: RunFolder) -> str:
    """The run's page."""
    path = reports.write_report(folder)
    assert path == folder.report
    return path.read_text()


def test_a_page_is_whole_and_needs_nothing_beside_it(page: str) -> None:
    reader = read(page)
    assert all(address.startswith(("#", "data:,", "data:image/png;base64,")) for address in reader.addresses)
    assert not re.search(r"url\((?!#)|@import", page)
    assert set(re.findall(r"https?://[^\s\"'<>)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert len(ids(page)) == len(re.findall(r'\bid="', page))
    assert reader.tags.count("svg") == 5  # two norms, images, two training curves


def test_what_users_write_is_escaped(page: str) -> None:
    assert "<script" not in page
    reader = read(page)
    assert reader.text.count(EVIL) >= 3  # the attack in table and title, the branch
    assert "script" not in reader.tags


def test_a_page_says_what_the_run_found(page: str) -> None:
    text = " ".join(read(page).text.split())
    assert "cnn4 on digits, defense adversarial, 10 updates, seed 0" in text
    assert "robust accuracy, linf radius 0.3 50.0 % 95 %: 9.5 % to 90.5 %" in text
    assert "2.5 l2 0.75" in text
    assert "defense.attack.eps 0.25 0.0313725" in text
    assert "train.batch 64 128" in text
    assert "[defense.attack]" in text


def test_a_run_without_records_has_a_page(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "young")
    write_json(run.recipe, resolve(Recipe()))
    text = read(reports.write_report(run).read_text()).text
    assert "None yet" in text
    assert "Nothing is recorded yet" in text
    assert "All defaults" in text


def test_an_unreadable_recipe_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "odd")
    write_json(run.recipe, {"train": {"epoch": 3}})
    with pytest.raises(ValueError, match=r"recipe.json: train.epoch: no such key"):
        reports.write_report(run)


def test_history_reads_records_while_they_are_written(folder: RunFolder, page: str) -> None:
    with Spool(folder.records) as spool:  # another process would hold it so
        spool.metrics("step", 10, {"train/loss": 0.5})
        path = folder.records / "records.jsonl"
        with path.open("ab") as file:
            file.write(b'{"number": 99, "ki')  # a record that is being written
        known = history(folder)
    assert known.series["train/loss"][-1] == (11.0, 0.5)
    assert known.series["validation/robust_accuracy"] == [(5.0, pytest.approx(0.4)), (10.0, pytest.approx(0.9))]
    assert "demo/accuracy/clean" not in known.series
    assert known.tags == {"git.branch": EVIL}
    assert history(RunFolder(folder.path / "nowhere")) == History({}, {})


def test_thinned_keeps_the_mean() -> None:
    series = [(float(i), float(i % 7)) for i in range(1001)]
    thin = thinned(series, 100)
    assert len(thin) == 100
    assert thin[0][0] == pytest.approx(4.5)
    assert abs(sum(y for _, y in thin) / 100 - 3) < 0.1
    assert thinned(series[:50], 100) == series[:50]


def test_differences_name_other_plug_ins_and_only_what_differs() -> None:
    recipe = Recipe(defense=Adversarial(attack=PGD(steps=3)), seed=5)
    found = {key: (reports.text(here), reports.text(default)) for key, here, default in reports.differences(recipe)}
    assert found == {
        "seed": ("5", "0"),
        "defense.name": ("adversarial", "standard"),
        "defense.attack.steps": ("3", "10"),
    }
    assert not list(reports.differences(Recipe()))
