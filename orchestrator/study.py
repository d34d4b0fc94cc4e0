"""A study: a published table as a TOML file in `studies/`. Each of its rows is a recipe, each column a measured figure.

A row is trained once for each seed, and measured by the study's evaluations; beside our mean stands what the paper
prints. A budget says how much of the paper's own setting fits: `smoke` in a minute, `reduced` overnight on two cores,
`full` as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, final

from algorithms import checks, plugins
from algorithms.balls import Norm
from orchestrator.config import RecipeError, build, load_recipe, text
from orchestrator.radii import spread
from orchestrator.recipe import Evaluation, Recipe

BUDGETS = ("smoke", "reduced", "full")
TRAINING = "training"  # where a column finds what a training recorded of itself
Taken = Literal["last", "mean", "total", "largest"]
Picture = Literal["spectra"]


@final
@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of each row."""

    title: str
    figure: str  # "accuracy/PGD-20" of an evaluation, or a metric of the training such as "cost/backwards_per_example"
    of: str = TRAINING  # the name of one of the study's evaluations or diagnoses, or "training"
    take: Taken = "last"  # of the values that a training recorded step by step
    at: float = 0.0  # a radius at which "accuracy/ATTACK" is wanted; 0: the evaluation's. A list: a column each
    until: float = 1.0  # of those, the first so much: "60/120" with take = "last" is the one after epoch 60 of 120
    over: str = ""  # a row's title: the figure is divided by that row's with the same seed
    minus: str = ""  # a row's title: that row's figure with the same seed is taken off
    scale: float = 1.0  # 100 makes per cent of a share
    decimals: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for a number of decimals that nobody reads, and for no part of a training."""
        checks.between("decimals", self.decimals, 0, 9, "a number of digits")
        checks.at_least("at", self.at, 0, "a radius")
        if not 0 < self.until <= 1:
            raise ValueError(f"until: a share of the training, above 0 and at most 1, not {self.until:g}")

    @property
    def key(self) -> str:
        """The figure's name among all that are known of a model."""
        return f"{self.figure} at {self.at:.6g}" if self.at else self.figure


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the table: a model."""

    title: str
    recipe: str = ""  # a path from the study's file; empty: the study's own
    set: tuple[str, ...] = ()  # changes to it, as on the command line
    seed_shift: int = 0  # added to the budget's seeds: a model that is trained apart from those of other rows
    published: dict[str, float] = field(default_factory=dict)  # what the paper prints, by the column's title
    note: str = ""  # what stands in for what, where the paper's own cannot be had

    def __post_init__(self) -> None:
        """Raises ValueError for a negative shift."""
        checks.at_least("seed_shift", self.seed_shift, 0, "a whole number")


@final
@dataclass(frozen=True, kw_only=True)
class Examination:
    """A diagnosis of each model, which says whether its gradients are masked."""

    budget: str = "quick"  # a name from `sparring list budgets`, or a path to a TOML file
    norm: Norm = "linf"
    eps: float = 0.3
    examples: int = 0  # the first so many of the test part; 0: as many as the budget affords

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("examples", self.examples, 0, "a number of examples")


@final
@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What people have said of a model's adversarial images (`sparring annotate`), and what another model says."""

    suite: str  # whose attack makes the images
    attack: str = ""  # its label in the suite; empty: the one whose images are shown
    images: int = 100  # so many test images are attacked; those that fall are shown
    reader: str = ""  # a row's title: the model that answers as an annotator does; empty: none

    def __post_init__(self) -> None:
        """Raises ValueError for no image."""
        checks.at_least("images", self.images, 1, "a number of images")


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is spent on it."""

    seeds: tuple[int, ...] = (0,)
    set: tuple[str, ...] = ()  # changes to every recipe, after the row's own
    recipes: dict[str, str] = field(default_factory=dict)  # by the row's title: other ones than the rows' own
    examples: int = 0  # of the test part, at most; 0: as the evaluations say
    shorter: dict[str, str] = field(default_factory=dict)  # another suite or budget, by the name of what asks for one
    note: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for no seed or a negative one."""
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"seeds: one whole number or more, none negative, not {list(self.seeds)}")


@final
@dataclass(frozen=True, kw_only=True)
class Study:
    """A published table, and how to make it again."""

    about: str  # one sentence
    paper: str  # who, when, which table
    columns: tuple[Column, ...]
    rows: tuple[Line, ...]
    budgets: dict[str, Budget]
    recipe: str = ""  # a path from the study's file, for rows without one
    set: tuple[str, ...] = ()  # changes to every recipe, before the row's own
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    diagnoses: dict[str, Examination] = field(default_factory=dict)
    labels: dict[str, Labelling] = field(default_factory=dict)
    across: Literal["figures", "models"] = "figures"  # what the table shows side by side; the other, one below another
    pictures: tuple[Picture, ...] = ()  # spectra: singular values of each row's last layer, where trainings kept them
    note: str = ""  # what is to be known of every row

    def __post_init__(self) -> None:
        """Raises ValueError for titles given twice, and for names that nothing in the study has."""
        rows, columns = [row.title for row in self.rows], [column.title for column in self.columns]
        for key, titles in (("rows", rows), ("columns", columns)):
            if not titles or len(set(titles)) < len(titles):
                raise ValueError(f"{key}: one or more, each with a title of its own, not {titles}")
        self._check_names(rows, columns)

    def _check_names(self, rows: list[str], columns: list[str]) -> None:
        measured = [*self.evaluations, *self.diagnoses, *self.labels]
        if len(set(measured)) < len(measured):
            raise ValueError(f"diagnoses, labels: names that nothing else has, not {[*self.diagnoses, *self.labels]}")
        for name, labelling in self.labels.items():
            _known(f"labels: {name}: reader", labelling.reader or rows[0], rows, "row")
        self._check_columns(rows, measured)
        for row in self.rows:
            for title in row.published:
                if title not in columns:
                    raise ValueError(f"rows: {row.title}: published: no column is called {title!r}")
        for name, budget in self.budgets.items():
            _known("budgets", name, BUDGETS, "budget")
            for title in budget.recipes:
                _known(f"budgets: {name}: recipes", title, rows, "row")
            for asked in budget.shorter:
                _known(f"budgets: {name}: shorter", asked, measured, "evaluation")

    def _check_columns(self, rows: list[str], measured: list[str]) -> None:
        for column in self.columns:
            _known(f"columns: {column.title}", column.of, [TRAINING, *measured], "evaluation")
            _known(f"columns: {column.title}: over", column.over or rows[0], rows, "row")
            _known(f"columns: {column.title}: minus", column.minus or rows[0], rows, "row")
            if column.over and column.minus:
                raise ValueError(f"columns: {column.title}: over or minus another row, not both")
            if column.at and not (column.of in self.evaluations and column.figure.startswith("accuracy/")):
                raise ValueError(f"columns: {column.title}: at: a radius for an accuracy of an evaluation alone")


def _known(where: str, name: str, names: Sequence[str], kind: str) -> None:
    if name not in names:
        raise ValueError(f"{where}: {plugins.unknown(name, list(names), kind)}")


@final
@dataclass(frozen=True)
class Cell:
    """A model of a study: a row with a seed."""

    row: Line
    seed: int  # of the budget; the recipe's own is larger by the row's shift
    recipe: Recipe


def load_study(path: str | Path) -> Study:
    """The study in a file. Raises RecipeError, which says in one line what is wrong where."""
    tables = text.read(path)
    try:
        study: Study = build(Study, spread(tables))
        _confine(study, Path(path))
    except RecipeError as error:
        raise RecipeError(error.path, error.problem, str(path)) from None
    return study


def chosen(study: Study, wanted: tuple[str, ...]) -> Study:
    """The study with those rows alone that have one of these titles, or else begin so; without any, all rows.

    Rows that others are compared with, or read by, stay. Raises ValueError for what no title is or begins with.
    """
    titles = [row.title for row in study.rows]
    needed = {column.over or column.minus for column in study.columns} | {
        asked.reader for asked in study.labels.values()
    }
    kept = needed if wanted else set(titles)
    for one in wanted:
        found = {one} if one in titles else {title for title in titles if title.startswith(one)}
        if not found:
            raise ValueError(f"rows: titles or their beginnings, not {one!r}; the study has: {', '.join(titles)}")
        kept |= found
    budgets = {
        name: replace(budget, recipes={title: path for title, path in budget.recipes.items() if title in kept})
        for name, budget in study.budgets.items()
    }
    return replace(study, rows=tuple(row for row in study.rows if row.title in kept), budgets=budgets)


def _confine(study: Study, file: Path) -> None:
    """Raises RecipeError for changes, written in a study's file, that lead out of the run's and the file's folders."""
    for changes in (study.set, *(row.set for row in study.rows), *(budget.set for budget in study.budgets.values())):
        changed: dict[str, Any] = {}
        for key, value in map(text.parse_override, changes):
            text.override(changed, key, value)
        text.confine(changed, file, set())


def cells_of(study: Study, path: str | Path, budget: Budget, overrides: tuple[str, ...] = ()) -> list[Cell]:
    """The models of a study, their recipes complete. Raises RecipeError, naming the row, for one that cannot be."""
    cells = []
    for row in study.rows:
        file = budget.recipes.get(row.title, row.recipe or study.recipe)
        if not file:
            raise RecipeError(("rows",), f"{row.title}: no recipe, neither its own nor the study's", str(path))
        changes = (*study.set, *row.set, *budget.set, *overrides)
        own = [seed + row.seed_shift for seed in budget.seeds]
        try:
            loaded = [load_recipe(Path(path).parent / file, (*changes, f"seed={seed}")) for seed in own]
        except RecipeError as error:
            raise RecipeError(error.path, f"{error.problem} (row {row.title!r})", str(path)) from None
        cells += [Cell(row, seed, recipe) for seed, recipe in zip(budget.seeds, loaded, strict=True)]
    return cells
