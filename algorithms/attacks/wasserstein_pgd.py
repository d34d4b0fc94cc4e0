"""PGD in a Wasserstein ball by projected Sinkhorn iterations (Wong et al. 2019, https://arxiv.org/abs/1902.07906)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from algorithms import checks, sinkhorn, transport
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images


class Iterate(NamedTuple):
    """Where the rows stand."""

    x_adv: Images


@final
@dataclass(frozen=True, kw_only=True)
class WassersteinPGD(Attack):
    """Steps along the gradient's sign and projects onto a Wasserstein ball after each step.

    The baseline for attacks of this kind. The published projection ends in clipping to [0, 1], which makes or destroys
    about a hundredth of the mass; here the image is made from the projection's plan, scaled into the budget and with no
    pixel above 1, unless `repair` is False. The radius is a cost per unit of mass, and `norm`, the l1 norm of the
    change, is only what is recorded. A step costs one pass both ways and up to `sweeps` sweeps over about three plans
    of channels * height * width * window^2 numbers an example, which take longer than a small model.
    """

    norm: Literal["l1"] = "l1"
    eps: float = 0.5  # cost of transport per unit of mass, in pixels to the power `power`
    steps: int = 50
    step_size: float = 0.1  # in pixel units, along the gradient's sign
    window: int = 5  # side of the square that a pixel's mass stays in, in pixels; 0: the whole image
    power: transport.Power = 2  # of the distance, in the cost of a move
    metric: transport.Metric = "l2"  # distance between two pixels
    sharpness: float = 1000.0  # of the projection: weight of the distance against the plan's entropy (lambda)
    sweeps: int = 50  # of the projection, at most
    growth: float = 1.0  # factor on the radius every so many steps; 1.4 in the paper's training
    every: int = 5  # steps between two radii
    repair: bool = True
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        transport.check(self.eps, self.window, self.growth, self.every)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.between("sharpness", self.sharpness, 1, 1e6, "a weight")
        checks.at_least("sweeps", self.sweeps, 1, "a number of sweeps")

    @property
    def costs(self) -> transport.Costs:
        """How mass may move; `eps` is of them."""
        return transport.Costs(self.window, self.power, self.metric)

    def start(self, problem: Problem) -> Iterate:
        """The clean images."""
        return Iterate(problem.x)

    def step(self, problem: Problem, state: Iterate, k: int) -> Iterate:
        """One step of signs, projected."""
        x, eps = problem.x, transport.radius(self.eps, self.growth, self.every, k)
        ways = transport.routes(x, self.window, self.power, self.metric)
        moved = state.x_adv + self.step_size * problem.gradient(state.x_adv).gradient.sign()
        found = sinkhorn.project(x, moved, ways, eps, sharpness=self.sharpness, sweeps=self.sweeps)
        if self.repair:
            return Iterate(transport.feasible(x, found.moves, ways, eps)[0])
        return Iterate(found.x.clamp(0, 1))
