"""The plots of an evaluation, from the files in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.distance_plots import distribution
from orchestrator.evaluations.figures import Curve
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.parts import read_images
from orchestrator.fosc_plots import ways
from orchestrator.image_plots import Example, image_grid
from orchestrator.plots import measures, robust_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # images of a grid
FOLLOWED = 20  # examples whose way through the attack is drawn


def figures_of(outcome: Outcome) -> dict[str, Figure]:
    """The plots by name."""
    drawn = {}
    if outcome.curves:
        drawn["robust-accuracy"] = robust_accuracy(outcome.curves, (outcome.norm, outcome.eps))
    samples = relative_norms(outcome)
    if samples:
        drawn["distances"] = distribution(samples)
    full = measured(outcome)
    if full:
        drawn["measures"] = measures(full)
    examples = pictures(outcome)
    if examples:
        title = f"{outcome.shown}, {outcome.norm}, eps = {outcome.eps:.4g}; above each image, what the model says"
        drawn["images"] = image_grid(examples, title)
    return drawn | convergence_of(outcome)


def convergence_of(outcome: Outcome) -> dict[str, Figure]:
    """The way of some examples through the attack that is shown, to its end, where it searches a ball.

    The examples of the table itself end where they first fool the model, so that weak ones have not converged: accuracy
    by condition is drawn of the training's examples, which go on.
    """
    kept = read_images(outcome.images)
    return {"fosc-ways": ways(kept.fosc[:, :FOLLOWED], kept.loss[:, :FOLLOWED])} if kept.fosc.size else {}


def relative_norms(outcome: Outcome) -> dict[str, NDArray[np.float64]]:
    """Of each attack for the smallest norm, on examples that are right as they are and were fooled by it."""
    wanted = [row.attack for row in outcome.table if row.relative is not None and row.relative.correct is not None]
    if not wanted:
        return {}
    rows = pq.read_table(outcome.parquet, columns=["attack", "label", "predicted", "success", "relative"])
    names = rows["attack"].cast("string").to_numpy()
    kept = rows["success"].to_numpy() & (rows["label"].to_numpy() == rows["predicted"].to_numpy())
    return {name: rows["relative"].to_numpy()[kept & (names == name)] for name in wanted}


def measured(outcome: Outcome) -> list[Curve]:
    """The curves that have cross-entropy and precision error too."""
    return [curve for curve in outcome.curves if all(point.loss is not None for point in curve.points)]


def pictures(outcome: Outcome) -> list[Example]:
    """The first attacked images, as many as a grid shows; those that were wrong before any attack are passed over."""
    kept = read_images(outcome.images)
    columns = ["attack", "index", "label", "predicted", "predicted_adv"]
    rows = pq.read_table(outcome.parquet, columns=columns)
    rows = rows.filter(pc.equal(rows["attack"].cast("string"), outcome.shown))
    place = {int(index): row for row, index in enumerate(rows["index"].to_numpy())}
    label, predicted, after = (rows[name].to_numpy() for name in columns[2:])
    found = []
    for number, index in enumerate(kept.index):
        row = place[int(index)]
        if label[row] != predicted[row]:
            continue
        names = [outcome.classes[int(np.asarray(column)[row])] for column in (label, predicted, after)]
        found.append(Example(kept.clean[number], kept.adversarial[number], *names))
    return found[:SHOWN]
