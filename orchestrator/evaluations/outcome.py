"""What an evaluation found: a table, curves, and where the rest lies."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from algorithms.attacks import Attack
from algorithms.balls import Geometry
from orchestrator.evaluations import figures
from orchestrator.evaluations.figures import Curve, Point, Row
from orchestrator.folders import write_atomically
from orchestrator.metrics import printable

if TYPE_CHECKING:
    from orchestrator.evaluations.settings import Settings
    from orchestrator.suites import Entry

WORST, CERTIFIED = "worst case", "certified"


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures of an evaluation. `folder` holds `examples.parquet`, `images.npz`, plots, and this as JSON."""

    run: str
    suite: str
    norm: Geometry
    eps: float
    examples: int
    table: tuple[Row, ...]  # clean, each attack, worst case
    curves: tuple[Curve, ...]
    shown: str  # the attack whose images were kept
    classes: tuple[str, ...]  # of the data set
    gains: dict[str, float] = field(default_factory=dict)  # of layers, which certified radii follow from; else empty
    folder: Path

    @property
    def parquet(self) -> Path:
        """A row per example and attack."""
        return self.folder / "examples.parquet"

    @property
    def images(self) -> Path:
        """Some clean and adversarial images."""
        return self.folder / "images.npz"

    def metrics(self) -> dict[str, float]:
        """Names and values for MLflow; names have only letters, digits, `_`, `-`, `.` and `/`."""
        found = {f"{self.suite}/examples": float(self.examples), f"{self.suite}/eps": self.eps}
        for row in self.table:
            name = printable(row.attack)
            if row.accuracy is not None:
                found[f"{self.suite}/accuracy/{name}"] = row.accuracy.value
            if row.loss is not None:
                found[f"{self.suite}/cross_entropy/{name}"] = row.loss
            if row.precision is not None:
                found[f"{self.suite}/precision_error/{name}"] = row.precision
            if row.median is not None:
                found[f"{self.suite}/median_norm/{name}"] = row.median
            if row.mean is not None:
                found[f"{self.suite}/mean_norm/{name}"] = row.mean
            if row.relative is not None:
                means = {"correct": row.relative.correct, "all": row.relative.everything}
                found |= {f"{self.suite}/rho_{key}/{name}": mean for key, mean in means.items() if mean is not None}
        return found

    def write(self) -> None:
        """Puts the outcome beside what it sums up."""
        content = ADAPTER.dump_json(self, indent=2, exclude={"folder"})  # it may be moved
        write_atomically(self.folder / "outcome.json", content + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The outcome of a finished evaluation; None if there is none, or it cannot be read."""
        try:
            stored = json.loads((folder / "outcome.json").read_bytes())
            found: Self = ADAPTER.validate_python({**stored, "folder": folder})
        except (OSError, ValueError, TypeError):  # not finished, or damaged: it is made again
            return None
        return found if found.parquet.is_file() and found.images.is_file() else None


ADAPTER: TypeAdapter[Any] = TypeAdapter(Outcome)


@final
@dataclass(frozen=True)
class Found:
    """An attack's rows, as columns."""

    index: NDArray[np.int64]
    success: NDArray[np.bool_]
    norms: dict[Geometry, NDArray[np.float64]]
    relative: NDArray[np.float64]
    forwards: NDArray[np.int64]
    backwards: NDArray[np.int64]
    loss: NDArray[np.float64]
    precision: NDArray[np.float64]

    def distances(self, norm: Geometry, examples: int) -> NDArray[np.float64]:
        """Of every example to the adversarial image that this attack found; infinite where it found none."""
        nearest = np.full(examples, math.inf)
        nearest[self.index] = np.where(self.success, self.norms[norm], math.inf)
        return nearest


def table_and_curves(settings: Settings, rows: Any) -> tuple[tuple[Row, ...], tuple[Curve, ...]]:
    """The figures from the rows of all stages."""
    clean = _found(rows, "clean").distances(settings.norm, settings.examples)
    table = [_plain("clean", clean, settings, 0.0)]
    curves = []
    known = clean
    for entry in settings.suite.attacks:
        found = _found(rows, entry.label)
        known = np.minimum(known, found.distances(settings.norm, settings.examples))
        table.append(_row(entry, found, (clean, known), settings))
        if entry.attack.minimal:
            own = np.minimum(clean, found.distances(entry.attack.norm, settings.examples))
            curves.append(figures.step_curve(entry.label, entry.attack.norm, own))
    if settings.lipschitz:
        radii = certified_radii(rows, settings.examples, settings.entries)
        table.append(_certified(radii, settings))
        curves.append(figures.step_curve(CERTIFIED, "l2", radii))
    table.append(_plain(WORST, known, settings, settings.eps))
    if settings.suite.curve is not None and settings.suite.curve.every:
        alone = [entry for entry in settings.suite.attacks if entry.examples == "all"]
        sweep = settings.suite.sweep
        curves += [_alone(settings, rows, (entry, *sweep[i :: len(alone)])) for i, entry in enumerate(alone)]
    elif settings.suite.curve is not None:
        curves.append(_measured(settings, rows, known))
    return tuple(table), tuple(curves)


def certified_radii(rows: Any, examples: int, entries: int) -> NDArray[np.float64]:
    """The certified l2 radius of each example, 0 where the model is wrong as it is.

    No attack can have found anything within it: if one has, the certificate is wrong, and that is an error of ours.
    """
    radii = np.zeros(examples)
    clean = np.asarray(rows["attack"].combine_chunks().dictionary_decode()) == "clean"
    index, distance = rows["index"].to_numpy(), rows["l2"].to_numpy()
    radii[index[clean]] = rows["certified"].to_numpy()[clean]
    found = rows["success"].to_numpy() & (rows["predicted"].to_numpy() == rows["label"].to_numpy())
    allowed = 1e-3 * radii[index[found]] + figures.tolerance("l2", 1.0, entries)  # float32 is not exact arithmetic
    broken = distance[found] + allowed < radii[index[found]]
    assert not broken.any(), f"adversarial images within certified radii of examples {index[found][broken][:5]}"
    return radii


def _certified(radii: NDArray[np.float64], settings: Settings) -> Row:
    """The row of the certificate: in another norm than l2 by the largest l2 norm that a perturbation can have there."""
    reach = figures.reach(settings.norm, settings.eps, settings.entries)
    share, half = figures.accuracy(np.asarray(radii > reach)), figures.median(radii)
    return Row(CERTIFIED, settings.examples, share, "alone", 0.0, 0.0, "l2", half)


def _measured(settings: Settings, rows: Any, known: NDArray[np.float64]) -> Curve:
    """The curve of all attacks together, at the radii where one of them was run."""
    assert settings.suite.curve is not None
    for entry in settings.suite.sweep:
        known = np.minimum(known, _found(rows, entry.label).distances(settings.norm, settings.examples))
    first = known[: settings.suite.curve.examples or None]
    radii = [settings.eps, *(entry.eps for entry in settings.suite.sweep)]
    return figures.point_curve(WORST, settings.norm, first, radii, settings.entries)


def _alone(settings: Settings, rows: Any, entries: tuple[Entry, ...]) -> Curve:
    """The curve of one attack on the same examples at every radius, with cross-entropy and precision error."""
    assert settings.suite.curve is not None
    first = settings.suite.curve.examples or settings.examples
    points = []
    for radius, label in sorted([(0.0, "clean"), *((entry.eps, entry.label) for entry in entries)]):
        found = _found(rows, label)
        near = found.distances(settings.norm, settings.examples)[:first]
        looked_at = found.index < first
        share = figures.accuracy(figures.standing(near, settings.norm, radius, settings.entries))
        means = (float(column[looked_at].mean()) for column in (found.loss, found.precision))
        points.append(Point(radius, share, *means))
    return Curve(entries[0].label, settings.norm, min(first, settings.examples), False, tuple(points))


def _plain(name: str, distances: NDArray[np.float64], settings: Settings, eps: float) -> Row:
    """A row of the table that is no attack's own."""
    share = figures.accuracy(figures.standing(distances, settings.norm, eps, settings.entries))
    return Row(name, settings.examples, share, "together", 0.0, 0.0, None, None)


def _row(entry: Entry, found: Found, before: tuple[NDArray[np.float64], ...], settings: Settings) -> Row:
    """An attack's row. `before`: distances known from the clean images alone, and from all attacks up to this one."""
    clean, known = before
    alone = entry.examples == "all"
    own = np.minimum(clean, found.distances(settings.norm, settings.examples))
    stands = figures.standing(own if alone else known, settings.norm, settings.eps, settings.entries)
    same = geometry(entry.attack) == settings.norm
    transported = alone and same and settings.norm == "wasserstein"
    minimal = entry.attack.minimal
    sizes = found.distances(entry.attack.norm, settings.examples)
    return Row(
        attack=entry.label,
        examples=len(found.index),
        accuracy=figures.accuracy(stands) if same else None,
        after="alone" if alone else "together",
        forwards=float(found.forwards.mean()) if len(found.index) else 0.0,
        backwards=float(found.backwards.mean()) if len(found.index) else 0.0,
        norm=entry.attack.norm if minimal else None,
        median=figures.median(np.minimum(clean, sizes)) if minimal else None,
        mean=figures.mean(sizes, clean > 0) if minimal and alone else None,
        relative=figures.relative(found.relative, found.success, clean[found.index] > 0) if minimal and alone else None,
        loss=float(found.loss.mean()) if transported else None,
        precision=float(found.precision.mean()) if transported else None,
    )


def geometry(attack: Attack) -> Geometry:
    """What an attack's radius is of."""
    return attack.norm if attack.costs is None else "wasserstein"


def _found(rows: Any, label: str) -> Found:
    """The rows of one stage."""
    names = np.asarray(rows["attack"].combine_chunks().dictionary_decode())
    chosen = names == label
    column = {name: rows[name].to_numpy()[chosen] for name in rows.schema.names[1:]}
    norms: dict[Geometry, Any] = {norm: column[norm] for norm in ("linf", "l2", "l1", "l0", "wasserstein")}
    rest = (column[name] for name in ("relative", "forwards", "backwards", "loss_adv", "precision"))
    return Found(column["index"], column["success"], norms, *rest)
