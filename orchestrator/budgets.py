"""A budget: what a diagnosis runs and how much of it, as a TOML file in `orchestrator/budgets/` or anywhere else.

The reference attack says how robust a model seems; each rival is another attack, which finds little more where
gradients are honest. As in suites, norm and radius are the diagnosis's, and lengths may be relative to the radius.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final, get_args

from algorithms import checks, plugins
from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from orchestrator import suites
from orchestrator.config import RecipeError, build
from orchestrator.config.kinds import fields_of

FOLDER = Path(__file__).with_name("budgets")
Needs = Literal["", "random", "adaptive"]


@final
@dataclass(frozen=True, kw_only=True)
class Reference:
    """The attack by which robustness is claimed."""

    label: str
    attack: Attack
    passes: int = 0  # forward passes an example that it costs, a backward pass counted as two; for planning

    def __post_init__(self) -> None:
        """Raises ValueError for an attack whose radius cannot grow."""
        if "eps" not in fields_of(type(self.attack)) or self.attack.minimal:
            raise ValueError(f"attack: one within a radius eps, such as pgd, not {plugins.name_of(self.attack)}")


@final
@dataclass(frozen=True, kw_only=True)
class Rival:
    """An attack on the examples that the reference attack leaves standing."""

    label: str
    attack: Attack
    asks: str = ""  # what it tries that the reference attack does not, in a few words
    needs: Needs = ""  # a model that it is for: one that draws random numbers, one with an adaptive solver; empty: any
    passes: int = 0  # as of the reference


@final
@dataclass(frozen=True, kw_only=True)
class Substitute:
    """The network that learns the model's predictions, for the attack `transfer`."""

    images: int = 2000  # of the training part
    epochs: int = 6
    pupil: Model = field(default_factory=Cnn4)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("images", self.images, 64, "a number of training images")
        checks.at_least("epochs", self.epochs, 1, "passes over them")


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a diagnosis runs."""

    about: str  # one sentence
    reference: Reference
    rivals: tuple[Rival, ...]
    examples: int = 128  # at most so many of the test part
    signs: int = 32  # of them, those on which the signs of masked gradients are measured
    work: float = 1e13  # floating-point operations in all; a costly model is shown fewer examples
    growth: int = 3  # radii between eps and the whole box at which the reference attack is run too
    iterations: tuple[int, ...] = (0, 1, 20, 100)  # of PGD, after which the steps of adaptive solvers are recorded
    substitute: Substitute = field(default_factory=Substitute)
    name: str = ""  # of the file

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense, and for a label that is there twice."""
        checks.at_least("examples", self.examples, 1, "a number of examples")
        checks.at_least("signs", self.signs, 1, "a number of examples")
        checks.at_least("work", self.work, 1, "a number of floating-point operations")
        checks.at_least("growth", self.growth, 1, "a number of radii")
        labels = [self.reference.label, *(rival.label for rival in self.rivals)]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"rivals: each with a label of its own; {twice!r} is there twice")

    @property
    def passes(self) -> int:
        """Forward passes that an example costs which withstands everything."""
        return (self.growth + 1) * self.reference.passes + sum(rival.passes for rival in self.rivals)


def names() -> list[str]:
    """The budgets that come with Sparring."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_budget(budget: str, norm: Norm, eps: float) -> Budget:
    """The budget of that name or in that file, for a radius. Rivals that do not know the norm are left out.

    Raises ValueError that names the file and the field.
    """
    if norm == "l0":
        raise ValueError("norm: gradients are followed in linf, l2 or l1; there is no diagnosis in l0")
    path = suites.located(budget, FOLDER, "budget")
    table = _filled(suites.read(path, "budgets", names()), norm, eps)
    try:
        loaded: Budget = build(Budget, table)
    except RecipeError as error:
        raise RecipeError(error.path, error.problem, str(path)) from error
    return dataclasses.replace(loaded, name=path.stem)


def _filled(table: dict[str, Any], norm: Norm, eps: float) -> dict[str, Any]:
    """The table with norm and radius in its attacks."""
    filled = dict(table)
    if isinstance(table.get("reference"), dict):
        filled["reference"] = suites.filled_entry(table["reference"], norm, eps, ("reference",))
    if isinstance(table.get("rivals"), list):
        filled["rivals"] = [
            suites.filled_entry(rival, norm, eps, ("rivals", number))
            for number, rival in enumerate(table["rivals"])
            if not isinstance(rival, dict) or _knows(rival.get("attack"), norm)
        ]
    return filled


def _knows(attack: Any, norm: Norm) -> bool:
    """Whether an attack can be asked for perturbations in that norm, as far as its table can be read.

    One that looks for the smallest perturbation in a norm of its own is run as it is: what it finds is measured.
    """
    if isinstance(attack, dict) and isinstance(attack.get("attack"), dict):
        return _knows(attack["attack"], norm)
    name = attack.get("name") if isinstance(attack, dict) else attack
    if name not in plugins.names(Attack):
        return True  # what is wrong is said when it is built
    kind: Any = plugins.find(Attack, name)
    offered = get_args(fields_of(kind).get("norm"))
    return not offered or norm in offered or (kind.minimal is True and len(offered) == 1)
