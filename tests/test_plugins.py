"""Folders as registries: a new file is found by its name, and a wrong name is met with the nearest."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.diagnostics.signs import Sign
from algorithms.models import Model
from algorithms.schedules import Schedule
from algorithms.updates import Update
from algorithms.views import View
from workers.datasets import Dataset

INTERFACES = [Attack, Defense, Update, Schedule, Model, Dataset, View, Sign]


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_file_beside_an_interface_is_one_final_frozen_value(interface: type) -> None:
    folder = Path(str(sys.modules[interface.__module__].__file__)).parent
    files = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    assert plugins.names(interface) == files
    assert files
    for name in files:
        kind = plugins.find(interface, name)
        assert issubclass(kind, interface)
        assert plugins.name_of(kind) == name
        assert getattr(kind, "__final__", False), f"{name}: @final is missing"
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert all(field.kw_only for field in dataclasses.fields(kind))
        assert kind.__doc__


def test_a_value_knows_its_name() -> None:
    assert plugins.name_of(PGD()) == plugins.name_of(PGD) == "pgd"
    assert plugins.find(Attack, "pgd") is PGD
    assert plugins.kind_of(Attack) == "attack"


def test_an_unknown_name_is_met_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ValueError, match=r"no attack is called 'fgsn'; did you mean 'fgsm'\? there are: .*fgsm, .*pgd"):
        plugins.find(Attack, "fgsn")
    with pytest.raises(ValueError, match=r"no update is called 'zzzzzz'; there are: .*sgd"):
        plugins.find(Update, "zzzzzz")
    with pytest.raises(ValueError, match="no attack is called '__init__'"):
        plugins.find(Attack, "__init__")


INTERFACE = """
from abc import ABC
class Shape(ABC): pass
"""
ROUND = """
from shapes import Shape
class Round(Shape): pass
"""


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[type, Path]:
    """An interface of its own, in an empty folder on the path."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    (folder / "__init__.py").write_text(INTERFACE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        monkeypatch.delitem(sys.modules, name)
    interface: type = importlib.import_module("shapes").Shape
    return interface, folder


def test_a_new_file_is_found_and_nothing_else_is_imported(shapes: tuple[type, Path]) -> None:
    interface, folder = shapes
    assert plugins.names(interface) == []
    (folder / "round.py").write_text(ROUND)
    (folder / "broken.py").write_text("raise RuntimeError('imported')")
    (folder / "_helper.py").write_text("")
    importlib.invalidate_caches()
    assert plugins.names(interface) == ["broken", "round"]
    assert plugins.find(interface, "round").__name__ == "Round"
    with pytest.raises(RuntimeError, match="imported"):  # an error of the file's own goes through
        plugins.find(interface, "broken")


def test_a_file_holds_exactly_one(shapes: tuple[type, Path]) -> None:
    interface, folder = shapes
    (folder / "none.py").write_text("from shapes import Shape")
    (folder / "two.py").write_text(ROUND + "class Oval(Shape): pass\n")
    (folder / "borrowed.py").write_text("from shapes.two import Round\n" + ROUND.replace("Round", "Square"))
    importlib.invalidate_caches()
    with pytest.raises(TypeError, match=r"shapes.none must define exactly one Shape; found none"):
        plugins.find(interface, "none")
    with pytest.raises(TypeError, match=r"shapes.two must define exactly one Shape; found Round, Oval"):
        plugins.find(interface, "two")
    assert plugins.find(interface, "borrowed").__name__ == "Square"  # what it imports is not its own
