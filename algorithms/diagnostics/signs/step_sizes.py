"""The gradient leaves out how an adaptive solver's step sizes follow the input.

torchdiffeq takes each step's size as a constant. `algorithms.ode.exact` computes the same values with the gradient of
all of it; how far the network's own gradient is from that is the part which attacks do not see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from algorithms import checks, losses
from algorithms.diagnostics.signs import Columns, Scene, Sign, nearby
from algorithms.gradients import differentiate, predict
from algorithms.ode.views import flows, recorded, with_solver


@final
@dataclass(frozen=True, kw_only=True)
class StepSizes(Sign):
    """Examples, one at a time, where the gradient is not the one that is differentiated through the step sizes."""

    honest: ClassVar[str] = "the gradient of the function that is computed"
    slack: float = 0.05
    wrong: float = 0.05  # relative error from which a gradient is called wrong

    def __post_init__(self) -> None:
        """Raises ValueError for an error that makes no sense."""
        checks.between("wrong", self.wrong, 0, 1, "a relative error")

    def applies(self, model: nn.Module) -> bool:
        """Networks with an adaptive solver."""
        return any(flow.solvers.prediction.adaptive for flow in flows(model))

    def measure(self, scene: Scene) -> Columns:
        """`error` of the gradient, `cosine` to the exact one; `evaluations` and `steps` of all blocks together."""
        exact = with_solver(scene.model, lambda solver: replace(solver, gradient="exact"))
        rows = []
        for x, y in zip(nearby(scene).split(1), scene.y.split(1), strict=True):
            with recorded(scene.model) as traces:
                given = gradient(scene.model, x, y)
            true = gradient(exact, x, y)
            error = (given - true).norm() / true.norm().clamp_min(1e-30)
            cosine = nn.functional.cosine_similarity(given.flatten(), true.flatten(), dim=0)
            counts = (sum(t.evaluations for t in traces), sum(len(t.times) - 1 for t in traces))
            rows.append(torch.stack([error, cosine, *(error.new_tensor(float(count)) for count in counts)]))
        error, cosine, evaluations, steps = torch.stack(rows).T
        return {
            "shows": error > self.wrong,
            "error": error,
            "cosine": cosine,
            "evaluations": evaluations,
            "steps": steps,
        }

    def summary(self, columns: Columns) -> str:
        """Error and cosine."""
        return (
            f"relative error {columns['error'].median():.2g} in the median, cosine {columns['cosine'].median():.3f}; "
            f"{columns['evaluations'].mean():.0f} evaluations in {columns['steps'].mean():.1f} steps an image"
        )


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of the margin of one image."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        return differentiate(losses.margin(predict(model, x), y), x)
