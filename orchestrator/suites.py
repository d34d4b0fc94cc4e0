"""A suite: a named list of attacks, as a TOML file in `orchestrator/suites/` or anywhere else.

A suite says what is done, an evaluation at which radius: where an attack has fields `norm` and `eps` and the suite does
not set them, the evaluation's are filled in. Lengths may be given relative to the radius (`step_size = "eps/8"`).
Where an evaluation names a surrogate, every attack that does not is made on it: any suite gives a black-box table.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from algorithms import checks, companions, plugins
from algorithms.attacks import Attack
from algorithms.attacks.transfer import Transfer
from algorithms.balls import Geometry
from orchestrator.config import RecipeError, build
from orchestrator.config.errors import Key
from orchestrator.config.kinds import defaults_of, fields_of

FOLDER = Path(__file__).with_name("suites")
NUMBER = r"\d{1,20}(?:\.\d{0,20})?"
RELATIVE = re.compile(rf"(?:(?P<times>{NUMBER})\s*\*\s*)?eps(?:\s*/\s*(?P<over>{NUMBER}))?")


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """An attack of a suite."""

    label: str  # what tables call it; its random numbers depend on it
    attack: Attack
    examples: Literal["all", "standing"] = "standing"  # every example, or those that no attack before it has fooled
    policy: Literal["first success", "highest loss"] = "first success"  # which image of an example counts
    targets: int = 0  # for a targeted attack: so many of the likeliest wrong classes are tried, one after the other

    def __post_init__(self) -> None:
        """Raises ValueError where targets and attack do not fit, and for a label that another row of a table has."""
        checks.at_least("targets", self.targets, 0, "a number of classes to aim at")
        if self.label in ("", "clean", "worst case"):
            raise ValueError(f"label: what tables call the attack, not {self.label!r}")
        if self.attack.targeted and not self.targets:
            raise ValueError("targets: how many of the likeliest wrong classes a targeted attack tries, 1 or more")
        if self.targets and not self.attack.targeted:
            raise ValueError(f"targets: 0 for an attack that is not targeted, not {self.targets}")

    @property
    def eps(self) -> float:
        """The attack's radius; infinite for one that looks for the smallest perturbation."""
        return math.inf if self.attack.minimal else float(getattr(self.attack, "eps", math.inf))


@final
@dataclass(frozen=True, kw_only=True)
class Radii:
    """At which other radii one attack is run too, for the curve of robust accuracy."""

    attack: str  # a label of the suite
    radii: tuple[float, ...]  # in pixel units; `"eps/2"` in a file
    examples: int = 500  # the first so many of the evaluation's examples; 0: all
    every: bool = False  # each attack on every example at each radius too: a curve an attack, of all measures

    def __post_init__(self) -> None:
        """Raises ValueError for negative numbers."""
        checks.at_least("examples", self.examples, 0, "a number of examples")
        for radius in self.radii:
            checks.at_least("radii", radius, 0, "lengths in pixel units")


@final
@dataclass(frozen=True, kw_only=True)
class Suite:
    """The attacks of an evaluation, in their order."""

    about: str  # one sentence
    attacks: tuple[Entry, ...]
    curve: Radii | None = None
    name: str = ""  # of the file
    sweep: tuple[Entry, ...] = ()  # the curve's attack at its other radii; `load_suite` fills it in

    def __post_init__(self) -> None:
        """Raises ValueError for no attack, for a label given twice and for one that is not there."""
        labels = [entry.label for entry in self.attacks]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if not labels:
            raise ValueError("attacks: one [[attacks]] table or more, each with a label and an attack")
        if twice is not None:
            raise ValueError(f"attacks: each with a label of its own; {twice!r} is there twice")
        if self.curve is not None and self.curve.attack not in labels:
            raise ValueError(f"curve: attack is one of {', '.join(labels)}, not {self.curve.attack!r}")

    @property
    def shown(self) -> str:
        """The label of the attack whose images a person gets to see."""
        return self.curve.attack if self.curve is not None else self.attacks[0].label


def names() -> list[str]:
    """The suites that come with Sparring."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def about(name: str) -> str:
    """What a suite that comes with Sparring is for, in one sentence."""
    return str(read(FOLDER / f"{name}.toml", "suites", names()).get("about", ""))


def load_suite(suite: str, norm: Geometry, eps: float, surrogate: str = "") -> Suite:
    """The suite of that name or in that file, for a radius; its attacks made on a surrogate if a run is named.

    Raises ValueError that names the file and the field.
    """
    path = located(suite, FOLDER, "suite")
    loaded = _loaded(path, norm, eps)
    curve, largest = loaded.curve, 1.0 if norm == "linf" else math.inf
    if curve is not None:
        radii = sorted({radius for radius in curve.radii if 0 < radius <= largest} - {eps})
        alone = [entry.label for entry in loaded.attacks if entry.examples == "all"]
        swept = alone if curve.every else [curve.attack]
        sweep = tuple(_at(_loaded(path, norm, radius), label, radius) for radius in radii for label in swept)
        loaded = dataclasses.replace(loaded, sweep=sweep)
    named = dataclasses.replace(loaded, name=path.stem)
    return made_on(named, surrogate) if surrogate else named


def made_on(suite: Suite, surrogate: str) -> Suite:
    """The suite with every attack that names no surrogate made on this one; labels and the suite's name say so."""
    labels = {entry.label: _made_on(entry, surrogate) for entry in (*suite.attacks, *suite.sweep)}
    curve = suite.curve
    if curve is not None:
        curve = dataclasses.replace(curve, attack=labels[curve.attack].label)
    return dataclasses.replace(
        suite,
        name=f"{suite.name}-black-box",
        attacks=tuple(labels[entry.label] for entry in suite.attacks),
        sweep=tuple(labels[entry.label] for entry in suite.sweep),
        curve=curve,
    )


def _made_on(entry: Entry, surrogate: str) -> Entry:
    """An entry whose attack is made on a surrogate."""
    if companions.surrogate_of(entry.attack):
        return entry
    inner = entry.attack.attack if isinstance(entry.attack, Transfer) else entry.attack
    attack = Transfer(attack=inner, surrogate=surrogate)
    return dataclasses.replace(entry, label=f"{entry.label} from {surrogate}", attack=attack)


def _loaded(path: Path, norm: Geometry, eps: float) -> Suite:
    """The suite as its file has it."""
    try:
        loaded: Suite = build(Suite, _filled(read(path, "suites", names()), norm, eps))
    except RecipeError as error:
        raise RecipeError(error.path, error.problem, str(path)) from error
    return loaded


def _at(suite: Suite, label: str, radius: float) -> Entry:
    """An attack of a suite, its label saying at which radius."""
    entry = next(entry for entry in suite.attacks if entry.label == label)
    return dataclasses.replace(entry, label=f"{label} at {radius:.6g}")


def relative(value: Any, eps: float, path: Key) -> Any:
    """`value` with every text in it that speaks of `eps` (`"eps/8"`, `"2.5*eps/20"`) turned into a number."""
    if isinstance(value, dict):
        return {key: relative(part, eps, (*path, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [relative(part, eps, (*path, i)) for i, part in enumerate(value)]
    if not isinstance(value, str) or not re.search(r"\beps\b", value):
        return value
    found = RELATIVE.fullmatch(value.strip())
    if found is None or float(found["over"] or 1) == 0:
        raise RecipeError(path, f'a multiple of eps, such as "eps/8" or "2.5*eps/20", not {value[:60]!r}')
    return float(found["times"] or 1) * eps / float(found["over"] or 1)


def _filled(table: dict[str, Any], norm: Geometry, eps: float) -> dict[str, Any]:
    """A suite's table with the evaluation's norm and radius where they belong."""
    filled = dict(table)
    if isinstance(table.get("attacks"), list):
        entries = enumerate(table["attacks"])
        filled["attacks"] = [filled_entry(entry, norm, eps, ("attacks", i)) for i, entry in entries]
    if isinstance(table.get("curve"), dict):
        filled["curve"] = relative(table["curve"], eps, ("curve",))
    return filled


def filled_entry(entry: Any, norm: Geometry, eps: float, path: Key) -> Any:
    """An entry's table with norm and radius where its attack has such fields and does not set them.

    An attack that is made for one norm alone, and another one, stays as it is.
    """
    if not isinstance(entry, dict) or "attack" not in entry:
        return entry
    return {**entry, "attack": filled_attack(entry["attack"], norm, eps, (*path, "attack"))}


def filled_attack(attack: Any, norm: Geometry, eps: float, path: Key) -> Any:
    """The table of an attack, and of those inside it, with the norm and the radius."""
    attack = {"name": attack} if isinstance(attack, str) else attack
    if not isinstance(attack, dict) or attack.get("name") not in plugins.names(Attack):
        return attack
    kind: Any = plugins.find(Attack, attack["name"])
    known, defaults = fields_of(kind), defaults_of(kind)
    given = {key: value for key, value in (("norm", norm), ("eps", eps)) if key in known}
    norms = ("wasserstein",) if kind.costs is not Attack.costs else typing.get_args(known.get("norm"))
    if norm == "wasserstein" or "wasserstein" in norms:  # a cost of transport, and no radius of the attack's norm
        given = {"eps": eps} if norm in norms else {}
    elif len(norms) == 1 and norms[0] != norm:
        given = {}
    inside = {key: attack.get(key) or plugins.name_of(defaults[key]) for key in known if known[key] is Attack}
    inside = {key: filled_attack(value, norm, eps, (*path, key)) for key, value in inside.items()}
    return given | relative(attack, eps, path) | inside


def located(name: str, folder: Path, kind: str) -> Path:
    """The file that a name stands for, or a path. `kind`: what it is, for the error where there is none."""
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name.endswith(".toml"):
        return Path(name)
    if name not in known:
        raise ValueError(f"{plugins.unknown(name, known, kind)}; or give the path of a .toml file")
    return folder / f"{name}.toml"


def read(path: Path, kind: str, known: list[str]) -> dict[str, Any]:
    """A file as plain data. `kind`: what it is one of, and `known` the names of those that come with Sparring."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; {kind} that come with Sparring: {', '.join(known)}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise ValueError(f"{path}: not a TOML file: {error}") from error
