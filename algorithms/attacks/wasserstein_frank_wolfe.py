"""Frank-Wolfe in a Wasserstein ball (Wu et al. 2020, https://arxiv.org/abs/2008.02883, section 5 and appendix)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from algorithms import balancing, checks, transport
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, per_row
from algorithms.transport import Moves, Routes

WARMEST = 0.05  # temperature of the first sweep; it falls to `entropy`, without which cold sweeps would take too long


class Plan(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    moves: Moves


@final
@dataclass(frozen=True, kw_only=True)
class WassersteinFrankWolfe(Attack):
    """Goes towards the best plan for the linearised loss, by a share that falls as 2 / (k + 2).

    The best plan is found with an entropy as regulariser by sweeps over the prices of cost and of bright pixels; no
    projection is needed. As published it knows of no upper bound on pixels, piles mass up and needs a repair that gives
    back half of what was gained: that is `capped = False`, with the published `entropy = 1e-3`. The radius is a cost
    per unit of mass, and `norm`, the l1 norm of the change, is only what is recorded. A step costs one pass both ways
    and `sweeps` sweeps over about four plans of channels * height * width * window^2 numbers an example, which take
    longer than a small model.
    """

    norm: Literal["l1"] = "l1"
    eps: float = 0.5  # cost of transport per unit of mass, in pixels to the power `power`
    steps: int = 50
    window: int = 5  # side of the square that a pixel's mass stays in, in pixels; 0: the whole image
    power: transport.Power = 2  # of the distance, in the cost of a move
    metric: transport.Metric = "l2"  # distance between two pixels
    entropy: float = 0.02  # of the linear problem's plan, against a gradient of largest entry 1 (gamma)
    capped: bool = True  # the linear problem knows that no pixel is above 1
    sweeps: int = 40  # over the prices, in each step
    growth: float = 1.0  # factor on the radius every so many steps
    every: int = 5  # steps between two radii
    loss: Loss = "log_odds"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        transport.check(self.eps, self.window, self.growth, self.every)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.between("entropy", self.entropy, 1e-6, 1, "a weight")
        checks.at_least("sweeps", self.sweeps, 1, "a number of sweeps")

    @property
    def costs(self) -> transport.Costs:
        """How mass may move; `eps` is of them."""
        return transport.Costs(self.window, self.power, self.metric)

    def start(self, problem: Problem) -> Plan:
        """The clean images, and no move."""
        ways = self._ways(problem.x)
        return Plan(problem.x, problem.x.new_zeros(*problem.x.shape[:2], *ways.cost.shape))

    def step(self, problem: Problem, state: Plan, k: int) -> Plan:
        """Part of the way to the best plan for the gradient."""
        x, ways, eps = problem.x, self._ways(problem.x), transport.radius(self.eps, self.growth, self.every, k)
        best = self._best(x, problem.gradient(state.x_adv).gradient, ways, eps)
        if self.capped:
            best = transport.feasible(x, best, ways, eps)[1]
        moves = state.moves + 2 / (k + 2) * (transport.afford(x, best, ways, eps) - state.moves)
        return Plan(*transport.feasible(x, moves, ways, eps))

    def _ways(self, x: Images) -> Routes:
        return transport.routes(x, self.window, self.power, self.metric)

    def _best(self, x: Images, gradient: Images, ways: Routes, eps: float) -> Moves:
        """The moves that raise <gradient, image> most."""
        gradient = gradient / per_row(gradient.abs().flatten(1).amax(1).clamp_min(1e-30), gradient)
        gain, prices = balancing.reachable(ways.to_targets(gradient), ways), balancing.free(x)
        warm = max(WARMEST, self.entropy)
        for sweep in range(self.sweeps):
            temperature = warm * (self.entropy / warm) ** min(1, sweep / (0.7 * self.sweeps))
            new = balancing.sweep(x, gain, ways, eps, prices, temperature)
            prices = new if self.capped else new._replace(bright=prices.bright)
        return balancing.spread(x, gain, ways, prices, self.entropy) * ways.moving
