"""Recipes and back: nothing is lost in TOML or JSON, every plug-in can be a section, editors get the same rules."""

from __future__ import annotations

import json
import pickle
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.standard import Standard
from algorithms.models import Model
from algorithms.schedules import Schedule
from algorithms.updates import Update
from algorithms.updates.adam import Adam
from orchestrator.config import RecipeError, build, json_schema, load_recipe, recipe_from, resolve, to_toml
from orchestrator.config.kinds import fields_of
from orchestrator.recipe import Recipe, Train, Workers
from workers.datasets import Dataset

RECIPES = Path(__file__).parents[1] / "recipes"
INTERFACES = (Attack, Defense, Update, Schedule, Model, Dataset)
PLUGINS = [(interface, name) for interface in INTERFACES for name in plugins.names(interface)]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_our_recipes_load_and_come_back(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert path.read_text().startswith("# ")
    assert recipe_from(json.loads(json.dumps(resolve(recipe), allow_nan=False))) == recipe
    assert recipe_from(tomllib.loads(to_toml(recipe))) == recipe


@pytest.mark.parametrize(("interface", "name"), PLUGINS, ids=[f"{i.__name__}-{n}" for i, n in PLUGINS])
def test_every_plug_in_can_be_a_section(interface: type[Any], name: str) -> None:
    plugin = plugins.find(interface, name)
    assert "name" not in fields_of(plugin), "a recipe's key `name` is the plug-in's"
    value = build(interface, name)
    tables = resolve(value)
    assert tables["name"] == name
    assert build(interface, json.loads(json.dumps(tables, allow_nan=False))) == value
    assert build(interface, tomllib.loads(to_toml(value))) == value


radii = st.floats(0, 1)
counts = st.integers(1, 10**6)
attacks = st.one_of(
    st.builds(PGD, eps=radii, steps=counts, random_start=st.booleans(), norm=st.sampled_from(["linf", "l2", "l1"])),
    st.builds(FGSM, eps=radii),
)
defenses = st.builds(Adversarial, attack=attacks, clean_weight=radii) | st.builds(Standard)
updates = st.builds(Adam, learning_rate=radii, betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)))
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)
recipes = st.builds(
    Recipe,
    seed=st.integers(0, 2**63 - 1),
    defense=defenses,
    update=updates,
    train=st.builds(Train, epochs=counts, lag=st.integers(0, 9), exchange=st.sampled_from(["examples", "gradients"])),
    workers=st.builds(Workers, address=words, deadline=st.floats(1, 1e6)),
)


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_nothing_is_lost_in_toml_or_json(recipe: Recipe) -> None:
    assert recipe_from(json.loads(json.dumps(resolve(recipe), allow_nan=False))) == recipe
    assert recipe_from(tomllib.loads(to_toml(recipe))) == recipe


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["defense", "train", "update", "seed", "name", "workers"]),
        anything | st.dictionaries(st.sampled_from(["name", "attack", "epochs", "batch", "betas"]), anything),
    )
)
def test_whatever_is_in_it_only_a_recipe_or_a_recipe_error_comes_out(tables: dict[str, Any]) -> None:
    try:
        made: object = recipe_from(tables)
    except RecipeError as error:
        made = error
    assert isinstance(made, Recipe) or "\n" not in str(made)


# Types that no section of ours has today


@dataclass(frozen=True, kw_only=True)
class Layer:
    bound: float


@dataclass(frozen=True, kw_only=True)
class Rich:
    attacks: tuple[Attack, ...] = ()
    spare: Attack | None = field(default_factory=lambda: PGD(steps=3))
    layers: dict[str, Layer] = field(default_factory=dict)
    limit: int | None = None
    sizes: list[int] = field(default_factory=list)
    folder: Path = Path("a")
    inner: Rich | None = None
    cached: int = field(default=0, init=False)


def test_collections_and_optional_plug_ins() -> None:
    tables = {
        "attacks": ["fgsm", {"name": "pgd", "steps": 3}],
        "spare": "none",
        "layers": {"features.0": {"bound": "1/2"}},
        "limit": 5,
        "sizes": [1, 2],
        "folder": "b",
    }
    value = build(Rich, tables)
    assert value == Rich(
        attacks=(FGSM(), PGD(steps=3)),
        spare=None,
        layers={"features.0": Layer(bound=0.5)},
        limit=5,
        sizes=[1, 2],
        folder=Path("b"),
    )
    assert build(Rich, json.loads(json.dumps(resolve(value)))) == value
    assert build(Rich, tomllib.loads(to_toml(value))) == value
    assert build(Rich, {}) == Rich()


def test_a_table_without_a_name_changes_the_default_of_its_field() -> None:
    assert build(Rich, {"spare": {"eps": 0.5}}).spare == PGD(eps=0.5, steps=3)
    assert build(Rich, {"spare": {"name": "pgd", "eps": 0.5}}).spare == PGD(eps=0.5)


def test_tables_within_tables_end_somewhere() -> None:
    tables: dict[str, Any] = {}
    for _ in range(1000):
        tables = {"inner": tables}
    with pytest.raises(RecipeError, match=r"^recipe: inner\.inner\.inner\.inner: tables within tables, 32 deep"):
        build(Rich, tables)


def test_toml_says_255ths_as_papers_do() -> None:
    assert 'eps = "8/255"' in to_toml(PGD(eps=8 / 255)).splitlines()
    assert "eps = 0.2" in to_toml(PGD(eps=0.2)).splitlines()


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"attacks": [{"steps": 3}]}, "recipe: attacks[0].name: missing; expected: the name of an attack: "),
        ({"attacks": ["pgd", 5]}, "recipe: attacks[1]: an attack (a name, or a table with a name), not 5"),
        (
            {"layers": {"features.0": {}}},
            'recipe: layers."features.0".bound: missing; expected: a number, or a fraction such as "8/255"',
        ),
        (
            {"layers": {"a": {"bound": 1, "bond": 2}}},
            "recipe: layers.a.bond: no such key; did you mean 'bound'? keys there: bound",
        ),
        ({"limit": "five"}, "recipe: limit: a whole number, not 'five'"),
        ({"sizes": [1, "2"]}, "recipe: sizes[1]: a whole number, not '2'"),
        ({"cached": 1}, "recipe: cached: no such key; keys there: attacks, spare, layers, limit, sizes, folder, inner"),
    ],
)
def test_what_is_wrong_in_collections(tables: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(Rich, tables)
    assert str(caught.value).startswith(expected)


def test_an_error_survives_pickling() -> None:
    error = RecipeError(("a", 1), "b", "c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "c: a[1]: b"


# For editors


def test_the_schema_takes_what_the_loader_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    for path in RECIPES.glob("*.toml"):
        judge.validate(tomllib.loads(path.read_text()))
        judge.validate(resolve(load_recipe(path)))
    judge.validate({"defense": "adversarial", "validation": {"attack": {"steps": 3}}, "train": {"average": "1/2"}})
    for wrong in (
        {"epochs": 5},
        {"train": {"epochs": "ten"}},
        {"defense": "none such"},
        {"defense": {"name": "standard", "attack": "pgd"}},
        {"validation": {"attack": {"step": 3}}},
    ):
        assert not judge.is_valid(wrong), wrong


def test_the_schema_says_what_a_field_is() -> None:
    pgd = json_schema()["$defs"]["attack.pgd"]
    assert pgd["properties"]["step_size"]["description"] == "in pixel units, like eps"
    assert pgd["description"].startswith("Climbs the loss from a random start")
