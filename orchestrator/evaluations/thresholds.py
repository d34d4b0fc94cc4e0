"""An attack's robust accuracy at any radius, from what an evaluation has kept.

An attack for the smallest norm was run once and answers for every radius: an example has fallen where its perturbation
is no larger. An attack within a ball answers for the radii at which it was run.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.evaluations.outcome import Outcome


def accuracy_at(outcome: Outcome, attack: str, radius: float) -> float | None:
    """The accuracy within `radius`, in the attack's own norm; None where the evaluation does not know it.

    `attack`: a row's label in the table, or `worst case`.
    """
    row = next((row for row in outcome.table if row.attack == attack), None)
    if row is not None and row.mean is not None and row.norm is not None:
        return float((smallest(outcome, attack, row.norm) > radius).mean())
    for curve in (curve for curve in outcome.curves if curve.attack == attack):
        for point in reversed(curve.points):
            if math.isclose(point.eps, radius, rel_tol=1e-6) or (curve.steps and point.eps < radius):
                return point.accuracy.value
    return None


def smallest(outcome: Outcome, attack: str, norm: str) -> NDArray[np.float64]:
    """Of every example the norm of the perturbation found: 0 if it is wrong as it is, infinite if none was found."""
    columns = ["attack", "label", "predicted", "success", norm]
    rows = pq.read_table(outcome.parquet, columns=columns)
    rows = rows.filter(pc.equal(rows["attack"].cast("string"), attack))
    label, predicted, success, size = (rows[name].to_numpy() for name in columns[1:])
    found = np.where(success, size, math.inf)
    return np.asarray(np.where(label == predicted, found, 0.0), dtype=np.float64)
