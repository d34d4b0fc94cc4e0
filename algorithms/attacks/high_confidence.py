"""High-confidence attack (Matyasko 2021, https://doi.org/10.32657/10356/143316, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import balls, checks, newton
from algorithms.attacks import Attack
from algorithms.search import Problem
from algorithms.tensors import Images, Labels, Logits, PerRow


class Way(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    delta: Images  # the sum of the steps, without overshoot
    target: Labels
    goal: PerRow  # logarithm of the probability to reach


@final
@dataclass(frozen=True, kw_only=True)
class HighConfidence(Attack):
    """Steps along the target's log-likelihood until the model is as sure of the target as it is asked to be.

    Shows what a model takes for a good example of another class: attacks that stop at the boundary leave ambiguous
    images, and this one does not. Each step is the least one that reaches the wanted probability if log-likelihood were
    linear (`algorithms.newton`), cut to `longest`. The target is the class whose linearised boundary is nearest to the
    clean image, or the given one.

    A row that gets there is done; its norm is of the image with that confidence, so it is larger than that of a minimal
    perturbation. A row that does not is judged by its last point. Each step costs a forward and a backward pass, and to
    find the nearest class a forward pass and a backward pass a class. `newton.unrolled` is its form for training, with
    gradients for the model's parameters.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l2"] = "l2"
    steps: int = 500
    probability: float = 0.0  # that the model gives the target at least; 0: as much as the clean image's own class has
    overshoot: float = 0.02  # share of the perturbation added to reach the goal
    longest: float = 0.1  # l2 length of a step, in pixel units
    loss: Literal["cross_entropy"] = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.between("probability", self.probability, 0, 1, "what the model gives the target")
        checks.at_least("overshoot", self.overshoot, 0, "a share of the perturbation")
        checks.at_least("longest", self.longest, 0, "a length in pixel units")

    def start(self, problem: Problem) -> Way:
        """The clean images, with the class and the probability to reach. Rows that are adversarial already are done."""
        x = problem.x
        if self.targeted:
            logits, target = problem.predict(x), problem.y
        else:
            at = problem.jacobian(x, lambda logits: logits)
            logits, target = at.logits, newton.nearest_class(at.logits, at.gradients, problem.y)
        problem.finish(problem.best.success)
        own = logits.log_softmax(1).amax(1)
        goal = torch.full_like(own, self.probability).log() if self.probability else own
        return Way(x, torch.zeros_like(x), target, goal)

    def step(self, problem: Problem, state: Way, k: int) -> Way:
        """One step, and back into the box."""
        at = problem.gradient_of(state.x_adv, lambda logits: newton.log_probability(logits, state.target), judged=False)
        there = self._reached(at.logits, at.value, state)
        problem.judge(state.x_adv, at.logits, there)
        problem.finish(there)
        step = balls.project(newton.newton_step(at.value, state.goal, at.gradient), "l2", self.longest)
        delta = (problem.x + state.delta + step).clamp(0, 1) - problem.x
        return state._replace(x_adv=(problem.x + (1 + self.overshoot) * delta).clamp(0, 1), delta=delta)

    def _reached(self, logits: Logits, value: PerRow, state: Way) -> torch.Tensor:
        return (logits.argmax(1) == state.target) & (value >= state.goal)
