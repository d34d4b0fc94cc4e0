"""The figures that an evaluation ends in, from its rows: pure arithmetic, no files.

An example has fallen at radius eps if any attack found an adversarial image of it within eps, whichever norm that
attack was made for; an example that the model gets wrong as it is has fallen at radius zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from algorithms.balls import Geometry

Z_95 = 1.959963984540054  # the standard normal distribution's 97.5 % quantile
Flags = NDArray[np.bool_]
Distances = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Share:
    """A measured share of examples with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@final
@dataclass(frozen=True)
class Relative:
    """How large an attack's perturbations are beside the images, on average (Moosavi-Dezfooli et al. 2016, eq. 15).

    Matyasko 2021 (https://doi.org/10.32657/10356/143316) takes `correct` in equation 3.20 and `everything` in 4.9. Both
    are of those examples for which the attack found a perturbation: where it failed for many, they say too little.
    """

    correct: float | None  # mean over the examples that the model gets right; None if there is none
    everything: float | None  # mean over all, those that the model gets wrong as they are with 0
    failed: int  # examples that the attack could not fool; they are in neither mean


@final
@dataclass(frozen=True)
class Row:
    """A line of an evaluation's table."""

    attack: str  # "clean", an attack's label, or "worst case"
    examples: int  # that were attacked, or for "clean" and "worst case" looked at
    accuracy: Share | None  # None: the attack is measured in another norm than the evaluation
    after: Literal["alone", "together"]  # accuracy under this attack alone, or together with those before it
    forwards: float  # mean passes an attacked example
    backwards: float
    norm: Geometry | None  # of `median`; None: not a minimal-norm attack
    median: float | None  # radius at which a minimal-norm attack fools half of all examples; None: never, or no such
    mean: float | None = None  # norm that a minimal-norm attack finds for examples that the model gets right
    relative: Relative | None = None  # of a minimal-norm attack on all examples
    loss: float | None = None  # mean cross-entropy of the attacked images; these two in Wasserstein balls only
    precision: float | None = None  # mean precision error, the share of its mass that an image gained or lost


@final
@dataclass(frozen=True)
class Point:
    """A point of a curve of robust accuracy."""

    eps: float
    accuracy: Share
    loss: float | None = None  # mean cross-entropy of the examples as they were attacked; None: they were not all
    precision: float | None = None  # mean precision error, the share of its mass that an image gained or lost


@final
@dataclass(frozen=True)
class Curve:
    """Robust accuracy against the radius."""

    attack: str
    norm: Geometry
    examples: int
    steps: bool  # True: every radius is known (a minimal-norm attack); False: measured at the points only
    points: tuple[Point, ...]


def wilson(count: int, total: int) -> Share:
    """`count` of `total` with the 95 % interval of Wilson (1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"count: between 0 and total = {total}, which is 1 or more; not {count}")
    share, spread = count / total, Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    low = 0.0 if count == 0 else max(0.0, centre - half)  # exact at both ends, where rounding would leave a trace
    high = 1.0 if count == total else min(1.0, centre + half)
    return Share(share, low, high)


def tolerance(norm: Geometry, eps: float, entries: int) -> float:
    """By how much a perturbation may exceed eps: each entry of `x_adv` is rounded to float32."""
    if norm == "wasserstein":  # the rounding moves mass, by at most a ten-thousandth of what the radius allows
        return eps * 1e-4
    many = {"linf": 1.0, "l2": math.sqrt(entries), "l1": float(entries), "l0": 0.0}[norm]
    return many * 2.0**-23 + (0.0 if norm == "l0" else eps * 1e-6)


def reach(norm: Geometry, eps: float, entries: int) -> float:
    """The largest l2 norm of a perturbation within eps of another norm, pixels being in [0, 1]."""
    wide = math.sqrt(entries)
    return {"linf": eps * wide, "l2": eps, "l1": eps, "l0": math.sqrt(eps), "wasserstein": wide}[norm]


def standing(distances: Distances, norm: Geometry, eps: float, entries: int) -> Flags:
    """Which examples have no adversarial image within eps. `distances`: to the nearest known one, infinite for none."""
    return np.asarray(distances > eps + tolerance(norm, eps, entries))


def accuracy(stands: Flags) -> Share:
    """The share of examples that stand."""
    return wilson(int(stands.sum()), len(stands))


def median(distances: Distances) -> float | None:
    """The lower median: at this radius half of the examples or more have fallen. None if fewer ever do."""
    middle = float(np.sort(distances)[(len(distances) - 1) // 2])
    return middle if math.isfinite(middle) else None


def mean(distances: Distances, right: Flags) -> float | None:
    """The mean over the examples that the model gets right and the attack fools; None if there is none."""
    found = distances[right & np.isfinite(distances)]
    return float(found.mean()) if len(found) else None


def relative(sizes: Distances, success: Flags, right: Flags) -> Relative:
    """Means of perturbations' norms over images' norms. `right`: examples that the model gets right as they are."""
    found = sizes[right & success]
    counted = int(success.sum())
    return Relative(
        correct=float(found.mean()) if len(found) else None,
        everything=float(found.sum() / counted) if counted else None,
        failed=len(sizes) - counted,
    )


def step_curve(attack: str, norm: Geometry, distances: Distances, most: int = 200) -> Curve:
    """The whole curve of a minimal-norm attack, thinned to at most about `most` of its steps."""
    found = np.unique(distances[np.isfinite(distances)])
    if len(found) > most:
        found = found[np.linspace(0, len(found) - 1, most).round().astype(int)]
    radii = [0.0, *(float(radius) for radius in found if radius > 0)]
    points = tuple(Point(radius, accuracy(np.asarray(distances > radius))) for radius in radii)
    return Curve(attack, norm, len(distances), True, points)


def point_curve(attack: str, norm: Geometry, distances: Distances, radii: Sequence[float], entries: int) -> Curve:
    """The curve of an attack with a budget, at the radii where it was run, and at zero."""
    tried = sorted({0.0, *radii})
    points = tuple(Point(radius, accuracy(standing(distances, norm, radius, entries))) for radius in tried)
    return Curve(attack, norm, len(distances), False, points)
