"""A run as a comparison sees it, whatever is left of it: nothing that is missing or damaged is silently dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator import convergence, provenance, stability
from orchestrator.diagnoses.outcome import Diagnosis
from orchestrator.evaluations.outcome import Outcome
from orchestrator.folders import RunFolder
from orchestrator.history import Series, history
from orchestrator.status import status

IDLE = ("name", "tracking", "workers.attackers", "workers.address", "workers.backend")  # no figure depends on these
Values = NDArray[np.float64]
Read = TypeVar("Read")
Group = tuple[str, str, float]  # suite, norm, radius: what makes evaluations comparable


class Side(NamedTuple):
    """A run."""

    name: str
    state: str  # "finished", "stopped after 3 of 40 steps", "running, ..."
    folder: RunFolder
    recipe: dict[str, str]  # dotted keys
    outcomes: dict[Group, Outcome]  # the newest of each kind
    series: dict[str, Series]
    fosc: Values | None  # of the examples that were measured after the last epoch
    spectra: dict[str, Values]  # singular values by layer
    diagnosis: Diagnosis | None  # the newest
    problems: tuple[str, ...]  # what is missing or cannot be read, and the remedy

    @property
    def dataset(self) -> str:
        """What it was trained and measured on."""
        return self.recipe.get("dataset.name", "unknown")


def side_of(folder: RunFolder) -> Side:
    """A run from its folder."""
    problems: list[str] = []
    outcomes = _outcomes(folder, problems)
    known = status(folder)
    state = known.state if known.state == "finished" else f"{known.state} after {known.steps} of {known.of} steps"
    if known.state == "stopped":
        problems.append(f"not finished: sparring train --resume {folder.name}")
    if not outcomes:
        problems.append(f"not evaluated: sparring evaluate {folder.name}")
    diagnoses = [d for d in map(Diagnosis.read, _newest(folder, "diagnoses/*/diagnosis.json")) if d is not None]
    return Side(
        folder.name,
        state,
        folder,
        _recipe(folder, problems),
        outcomes,
        history(folder).series,
        _undamaged(_fosc, folder, None, problems),
        _undamaged(_spectra, folder, {}, problems),
        diagnoses[0] if diagnoses else None,
        tuple(problems),
    )


def _newest(folder: RunFolder, pattern: str) -> list[Any]:
    """The folders of the files that fit, newest first."""
    files = sorted(folder.path.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    return [file.parent for file in files]


def _outcomes(folder: RunFolder, problems: list[str]) -> dict[Group, Outcome]:
    found: dict[Group, Outcome] = {}
    for place in _newest(folder, "evaluations/*/outcome.json"):
        outcome = Outcome.read(place)
        if outcome is None:
            problems.append(f"{place.name}: damaged or incomplete; the same evaluation makes it again")
        else:
            found.setdefault((outcome.suite, outcome.norm, outcome.eps), outcome)
    return found


def _undamaged(read: Callable[[RunFolder], Read], folder: RunFolder, otherwise: Read, problems: list[str]) -> Read:
    """What `read` finds; where it finds something damaged, that is noted."""
    try:
        return read(folder)
    except (OSError, ValueError, KeyError) as error:
        problems.append(f"damaged, and left out: {error}")
        return otherwise


def _fosc(folder: RunFolder) -> Values | None:
    measured = convergence.read(folder)
    if not measured:
        return None
    values: Values = measured[max(measured)]["fosc"].to_numpy().copy()
    return values


def _spectra(folder: RunFolder) -> dict[str, Values]:
    kept = stability.spectra_in(folder)
    return {} if kept is None else kept[0]


def _recipe(folder: RunFolder, problems: list[str]) -> dict[str, str]:
    try:
        return dict(provenance.flat(json.loads(folder.recipe.read_text(encoding="utf-8"))))
    except (OSError, ValueError, AttributeError):
        problems.append(f"{folder.recipe.name} cannot be read")
        return {}


def differing(sides: list[Side]) -> list[tuple[str, list[str]]]:
    """The keys of recipes that are not the same everywhere, each with its value a side; empty where there is none."""
    keys = dict.fromkeys(key for side in sides for key in side.recipe)
    rows = [(key, [side.recipe.get(key, "") for side in sides]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1 and not _idle(key)]


def _idle(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in IDLE)


def groups(sides: list[Side]) -> list[Group]:
    """The evaluations that there are, those that most runs have first."""
    counts: dict[Group, int] = {}
    for side in sides:
        for group in side.outcomes:
            counts[group] = counts.get(group, 0) + 1
    return sorted(counts, key=lambda group: (-counts[group], group))
