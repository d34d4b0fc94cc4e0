"""Feature adversary (Sabour et al. 2016, https://arxiv.org/abs/1511.05122, equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algorithms import balls, checks, plugins
from algorithms.attacks import Attack
from algorithms.companions import WithGuides
from algorithms.gradients import predict
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, Labels, Logits, PerRow

Features = Float[Tensor, "batch features"]


class Iterate(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    goal: Features  # to be approached, or to be left


@final
@dataclass(frozen=True, kw_only=True)
class FeatureAdversary(Attack):
    """Changes what a hidden layer makes of an image, by PGD on the squared distance of features; no label is used.

    Shows whether a representation is robust, and not just the classifier on it; its images often transfer to models
    that share the representation. By default an image is driven away from its own features. The paper drives it towards
    those of a guide, an image of another class: give `companions.WithGuides(model, guides, classes)` as the model, and
    each row goes to the guide of another class than its own whose features are nearest to begin with. An evaluation
    brings guides where `guides` asks for them: the first so many images of each class in the data set's training part.

    The paper minimises with L-BFGS-B; the steps here are PGD's. Each costs a forward and a backward pass, and a search
    one more forward pass, not counting the guides'.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    step_size: float = 2 / 255  # in pixel units, like eps
    steps: int = 40
    restarts: int = 1  # each from a point uniform in the ball
    guides: int = 0  # images of each class that an evaluation brings; 0: none, or those that come with the model
    layer: str = ""  # name of the module whose output is looked at; empty: what the last linear layer is given
    loss: Loss = "margin"

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.at_least("guides", self.guides, 0, "a number of images of each class")

    @property
    def targeted(self) -> bool:  # type: ignore[override] # no field: there is no class to reach
        """Never."""
        return False

    def start(self, problem: Problem) -> Iterate:
        """Points uniform in the ball, and the features to leave or to reach."""
        if self.guides and not isinstance(problem.model, WithGuides):
            raise ValueError(
                f"guides: {self.guides} images of each class have not come with the model; from Python, leave it 0 and "
                "attack WithGuides(model, guides, classes)"
            )
        x = problem.x
        with watched(problem.model, self.layer) as features:
            goal = features(problem.predict(x))
            if isinstance(problem.model, WithGuides):
                known = features(predict(problem.model, problem.model.guides))
                goal = nearest_guide(goal, known, problem.y, problem.model.classes)
        noise = balls.random_point(x, self.norm, self.eps, problem.streams)
        return Iterate((x + noise).clamp(0, 1), goal)

    def step(self, problem: Problem, state: Iterate, k: int) -> Iterate:
        """One steepest step, back onto the ball and into the box."""
        sign = -1 if isinstance(problem.model, WithGuides) else 1
        with watched(problem.model, self.layer) as features:

            def value(logits: Logits) -> PerRow:
                return sign * ((features(logits) - state.goal) ** 2).sum(1)

            gradient = problem.gradient_of(state.x_adv, value).gradient
        moved = state.x_adv + self.step_size * balls.steepest(gradient, self.norm)
        return state._replace(x_adv=(problem.x + balls.project(moved - problem.x, self.norm, self.eps)).clamp(0, 1))


@contextmanager
def watched(model: nn.Module, layer: str) -> Iterator[Callable[[Logits], Features]]:
    """Gives a function that turns the logits of a forward pass into the features of the same pass.

    Where a model has no linear layer, and no other is asked for, the logits are the features.
    Raises ValueError for a layer that the model does not have.
    """
    seen: list[Tensor] = []
    modules = dict((model.model if isinstance(model, WithGuides) else model).named_modules())
    linear = [module for module in modules.values() if isinstance(module, nn.Linear)]
    handles: list[Any] = []
    if layer:
        if layer not in modules:
            raise ValueError(f"layer: {plugins.unknown(layer, [name for name in modules if name], 'layer')}")
        handles = [modules[layer].register_forward_hook(lambda module, given, output: seen.append(output))]
    elif linear:
        handles = [linear[-1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))]

    def features(logits: Logits) -> Features:
        last = seen[-1] if handles else logits
        seen.clear()
        if not isinstance(last, Tensor) or len(last) != len(logits):
            raise ValueError(f"layer: one whose output is a tensor with a row an image, unlike that of {layer!r}")
        return last.flatten(1).to(logits.dtype)

    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def nearest_guide(clean: Features, known: Features, y: Labels, classes: Labels) -> Features:
    """For each row, the features nearest to its own among those of guides of another class."""
    distances = torch.cdist(clean, known, compute_mode="donot_use_mm_for_euclid_dist")
    own = y.unsqueeze(1) == classes.unsqueeze(0)
    return known[distances.masked_fill(own, torch.inf).argmin(1)]
