"""The convergence theorem of Wang et al. 2019 (https://arxiv.org/abs/2112.08304, Theorem 1) at the end of a training.

Its constants are estimated on a few examples, and nothing that is written here is proved: names say so.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from algorithms.diagnostics.minimax import Constants, bound
from orchestrator.backend import Backend
from orchestrator.convergence import last_shards
from orchestrator.recipe import Recipe

EXAMPLES = 16  # whose gradients are taken one by one
PIECES = 20  # of a training: the smallest loss is that of the best one
NOTE = (
    "Estimates: the constants are the extremes seen on a few examples, not suprema; the smallest robust loss is the "
    "smallest mean of a twentieth of the training. Without an attack term the loss was seen not to be concave within "
    "the balls, and the theorem says nothing."
)


def measure_theorem(recipe: Recipe, examples: int, backend: Backend, epoch: int) -> Constants:
    """The constants, estimated on an epoch's last examples by one worker. `examples`: in the training part."""
    shard = last_shards(recipe, examples, epoch)[0]
    backend.submit(("theorem", shard), "constants", shard, backend.ask_trainer("snapshot"), EXAMPLES)
    (result,) = backend.collect([("theorem", shard)])
    found: Constants = result.report
    return found


def terms_of(constants: Constants, delta: float, losses: Sequence[float]) -> dict[str, Any]:
    """Delta, the bound's terms and what they are made of, as JSON holds them. `losses`: of all steps, in their order.

    Terms that are infinite are None.
    """
    gap = losses[0] - min(piecewise_means(losses))
    terms = bound(constants, delta, max(gap, 0.0), len(losses))
    estimates = {
        "optimisation_term_estimate": terms.optimisation,
        "attack_term_estimate": terms.attack,
        "smoothness_in_parameters_estimate": constants.parameters,
        "smoothness_mixed_estimate": constants.mixed,
        "smoothness_of_inputs_estimate": constants.inputs,
        "concavity_estimate": constants.concavity,
        "gradient_variance_estimate": constants.variance,
        "loss_gap_estimate": gap,
    }
    finite = {name: value if math.isfinite(value) else None for name, value in estimates.items()}
    return {"delta": delta, "steps": len(losses), **finite, "note": NOTE}


def piecewise_means(values: Sequence[float]) -> list[float]:
    """Means over equal stretches, PIECES of them or one a value."""
    count = min(PIECES, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [statistics.mean(values[start:end]) for start, end in itertools.pairwise(edges)]
