"""Frank-Wolfe in a Wasserstein ball (Wu et al. 2020, https://arxiv.org/abs/2008.02883, section 5 and appendix)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch

from algorithms import checks, transport
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow, per_row
from algorithms.transport import Moves, Routes

HALVINGS = 20  # of the interval that the price of cost lies in


class Plan(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    moves: Moves


@final
@dataclass(frozen=True, kw_only=True)
class WassersteinFrankWolfe(Attack):
    """Goes towards the best plan for the linearised loss, by a share that falls as 2 / (k + 2).

    The best plan is found with an entropy as regulariser, by bisection on the price of cost; no projection is needed.
    As published it knows of no upper bound on pixels; here each iterate's moves are cut until no pixel is above 1. The
    radius is a cost per unit of mass, and `norm`, the l1 norm of the change, is only what is recorded. A step costs one
    pass both ways and 20 sweeps over about three plans of channels * height * width * window^2 numbers an example.
    """

    norm: Literal["l1"] = "l1"
    eps: float = 0.5  # cost of transport per unit of mass, in pixels to the power `power`
    steps: int = 50
    window: int = 5  # side of the square that a pixel's mass stays in, in pixels; 0: the whole image
    power: transport.Power = 2  # of the distance, in the cost of a move
    metric: transport.Metric = "l2"  # distance between two pixels
    entropy: float = 1e-3  # of the linear problem's plan, against a gradient of largest entry 1 (gamma)
    growth: float = 1.0  # factor on the radius every so many steps
    every: int = 5  # steps between two radii
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        transport.check(self.eps, self.window, self.growth, self.every)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.between("entropy", self.entropy, 1e-6, 1, "a weight")

    def start(self, problem: Problem) -> Plan:
        """The clean images, and no move."""
        ways = self._ways(problem.x)
        return Plan(problem.x, problem.x.new_zeros(*problem.x.shape[:2], *ways.cost.shape))

    def step(self, problem: Problem, state: Plan, k: int) -> Plan:
        """Part of the way to the best plan for the gradient, and back below 1."""
        x, ways, eps = problem.x, self._ways(problem.x), transport.radius(self.eps, self.growth, self.every, k)
        gradient = problem.gradient(state.x_adv).gradient
        best = self._best(x, gradient, ways, eps * transport.mass(x))
        moves = state.moves + 2 / (k + 2) * (transport.afford(x, best, ways, eps) - state.moves)
        return Plan(*transport.feasible(x, moves, ways, eps))

    def _ways(self, x: Images) -> Routes:
        return transport.routes(x, self.window, self.power, self.metric)

    def _best(self, x: Images, gradient: Images, ways: Routes, budget: PerRow) -> Moves:
        """The moves that raise <gradient, image> most at a cost of about the budget."""
        gradient = gradient / per_row(gradient.abs().flatten(1).amax(1).clamp_min(1e-30), gradient)
        gain = ways.to_targets(gradient).masked_fill(~(ways.moving | ways.staying), -torch.inf)
        low = torch.zeros_like(budget)
        high = torch.full_like(budget, 2 + 20 * self.entropy)  # above it no move is worth its cost, which is at least 1
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            over = ways.price(self._moves(x, gain, ways, middle)) > budget
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        return self._moves(x, gain, ways, high)

    def _moves(self, x: Images, gain: Moves, ways: Routes, price: PerRow) -> Moves:
        shares = torch.softmax((gain - per_row(price, gain) * ways.cost) / self.entropy, 2)
        return shares * ways.moving * x.flatten(2).unsqueeze(2)
