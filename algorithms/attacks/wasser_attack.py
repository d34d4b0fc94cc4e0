"""WasserAttack (Zhao et al. 2022, https://ieeexplore.ieee.org/document/9747294, equations 5 to 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import nn

from algorithms import balancing, checks, moments, transport
from algorithms.attacks import Attack
from algorithms.balancing import Prices
from algorithms.ledger import Ledger
from algorithms.losses import Loss
from algorithms.modes import frozen
from algorithms.search import Problem, check
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels, per_row
from algorithms.transport import Audit, Moves, Routes

RECENT = 3  # the mean of gradients takes RECENT / (k + RECENT) of a new one: weights grow as the square of the step
OUTSIDE = 0.002  # share of its pixel's mass that each tanh entry off the diagonal begins with: at 0 it has no slope


class Plan(NamedTuple):
    """Where the rows stand."""

    x_adv: Images
    slope: Images | None  # mean of the gradients so far, from which and the prices the plan follows; `softmax` only
    prices: Prices | None  # of cost and of bright pixels
    bent: Moves | None  # the free variable that the plan is made from (the paper's Phi); `tanh` only
    mean: Moves | None  # Adam's moments, of the gradient for `bent`
    square: Moves | None


@final
@dataclass(frozen=True, kw_only=True)
class WasserAttack(Attack):
    """Moves the mass of pixels where it fools the model most, within a Wasserstein ball.

    The plan is a function of free variables. With `softmax` each pixel's mass is shared out by a softmax of what a unit
    of mass gains at each target, so that no mass comes or goes. The gain is a mean of all gradients so far, the later
    ones with the greater weights (dual averaging), and after each step a few sweeps set the prices of cost and of
    bright pixels such that the budget and the brightest pixel are kept. With `tanh` it is as published: every entry is
    a hyperbolic tangent that Adam ascends, and violations are penalised by fixed multipliers, which cannot fit every
    model: it stands still or leaves the ball. Either way each point is repaired before the model sees it, so that it is
    in the ball and in [0, 1] and has the image's mass; `repair = False` shows the model what is published, clipped, and
    `audit` says how far that is from a plan.

    The radius is a cost per unit of mass, and `norm`, the l1 norm of the change, is only what is recorded. A step is
    one pass both ways and `sweeps` sweeps over the plan. An example keeps no plan (`tanh`: three) and needs about ten
    for a moment, each of channels * height * width * window^2 numbers: in float32 78 kB on MNIST with a window of 5,
    2.5 MB with all of the image; 0.3 and 12.6 MB on CIFAR-10.
    """

    norm: Literal["l1"] = "l1"
    eps: float = 0.5  # cost of transport per unit of mass, in pixels to the power `power`
    steps: int = 50
    encoding: Literal["softmax", "tanh"] = "softmax"
    entropy: float = 0.02  # temperature of the softmax, for gradients of largest entry 1; `softmax` only
    step_size: float = 0.1  # of Adam, in the free variables' units; `tanh` only
    window: int = 5  # side of the square that a pixel's mass stays in, in pixels; 0: the whole image
    power: transport.Power = 2  # of the distance, in the cost of a move
    metric: transport.Metric = "l2"  # distance between two pixels
    growth: float = 1.0  # factor on the radius every so many steps; 1.4 in the paper's training
    every: int = 5  # steps between two radii
    sweeps: int = 6  # over the prices after each step; `softmax` only
    row_penalty: float = 10.0  # on mass that is not the pixel's own; `tanh` only (the paper's alpha)
    box_penalty: float = 10.0  # on mass above 1; `tanh` only (beta)
    cost_penalty: float = 10.0  # on cost beyond the radius; `tanh` only (gamma)
    repair: bool = True
    loss: Loss = "log_odds"  # the paper's l0 is `margin`
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        transport.check(self.eps, self.window, self.growth, self.every)
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.between("entropy", self.entropy, 1e-6, 1, "a weight")
        checks.at_least("step_size", self.step_size, 0, "a length in the free variables' units")
        checks.at_least("sweeps", self.sweeps, 1, "a number of sweeps")
        for name in ("row_penalty", "box_penalty", "cost_penalty"):
            checks.at_least(name, getattr(self, name), 0, "a factor on a violation")

    @property
    def costs(self) -> transport.Costs:
        """How mass may move; `eps` is of them."""
        return transport.Costs(self.window, self.power, self.metric)

    def start(self, problem: Problem) -> Plan:
        """The clean images and a plan where all mass stays, or with `tanh` almost all."""
        x, ways = problem.x, self._ways(problem.x)
        if self.encoding == "softmax":
            return Plan(x, torch.zeros_like(x), balancing.free(x), None, None, None)
        share = torch.where(ways.staying, 1.0, OUTSIDE * ways.moving.to(x))
        few = torch.finfo(x.dtype).eps
        bent = torch.atanh((2 * share * x.flatten(2).unsqueeze(2) - 1).clamp(few - 1, 1 - few))
        return Plan(x, None, None, bent, torch.zeros_like(bent), torch.zeros_like(bent))

    def step(self, problem: Problem, state: Plan, k: int) -> Plan:
        """One step on the plan's variables, and the image that the new plan makes."""
        x, ways, eps = problem.x, self._ways(problem.x), self._radius(k)
        gradient = problem.gradient(state.x_adv).gradient
        if self.encoding == "softmax":
            new = self._averaged(x, state, gradient, ways, k)
        else:
            new = self._along(state, self._slope(x, state, gradient, ways, eps), k)
        plan = self._plan(x, new, ways, k)
        if self.repair:
            return new._replace(x_adv=transport.feasible(x, plan * ways.moving, ways, eps)[0])
        return new._replace(x_adv=ways.arriving(plan).clamp(0, 1))

    def audit(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Audit:
        """The violations of every row's last plan, as they are before any repair. Takes all steps for every row.

        Raises ValueError for images outside [0, 1], an empty batch and wrong labels.
        """
        check(x, y)
        with frozen(model):
            rows = torch.arange(len(x), device=x.device)
            ledger = Ledger(self, x, y, "highest loss")
            problem = Problem(model, ledger, rows, Streams.draw(rng, len(x), x.device), None)
            state = self.start(problem)
            for k in range(self.steps):
                state = self.step(problem, state, k)
        ways, last = self._ways(x), self.steps - 1
        plan = self._plan(x, state, ways, last)
        return transport.audit(x, plan, ways, self._radius(last))

    def _radius(self, k: int) -> float:
        return transport.radius(self.eps, self.growth, self.every, k)

    def _ways(self, x: Images) -> Routes:
        return transport.routes(x, self.window, self.power, self.metric)

    def _plan(self, x: Images, state: Plan, ways: Routes, k: int) -> Moves:
        """The whole plan after step `k`, not repaired."""
        if state.bent is not None:
            return 0.5 * (state.bent.tanh() + 1) * (ways.moving | ways.staying)
        assert state.slope is not None
        assert state.prices is not None
        gain = balancing.reachable(ways.to_targets(state.slope), ways)
        moves = balancing.spread(x, gain, ways, state.prices, self.entropy) * ways.moving
        return transport.whole(x, transport.afford(x, moves, ways, self._radius(k)), ways)

    def _averaged(self, x: Images, state: Plan, gradient: Images, ways: Routes, k: int) -> Plan:
        """The mean with the new gradient in it, and prices that fit it."""
        assert state.slope is not None
        assert state.prices is not None
        scaled = gradient / per_row(gradient.abs().flatten(1).amax(1).clamp_min(1e-30), gradient)
        slope, prices = torch.lerp(state.slope, scaled, RECENT / (k + RECENT)), state.prices
        gain = balancing.reachable(ways.to_targets(slope), ways)
        for _ in range(self.sweeps):
            prices = balancing.sweep(x, gain, ways, self._radius(k), prices, self.entropy)
        return state._replace(slope=slope, prices=prices)

    def _along(self, state: Plan, slope: Moves, k: int) -> Plan:
        """The variables of the hyperbolic tangent after a step of Adam."""
        assert state.bent is not None
        assert state.mean is not None
        assert state.square is not None
        mean, square = moments.advance(state.mean, state.square, slope)
        direction, denominator = moments.corrected(mean, square, k + 1)
        return state._replace(bent=state.bent + self.step_size * direction / denominator, mean=mean, square=square)

    def _slope(self, x: Images, state: Plan, gradient: Images, ways: Routes, eps: float) -> Moves:
        """The gradient of equation 9 for the variables of the hyperbolic tangent."""
        plan = self._plan(x, state, ways, 0)
        after, total = ways.arriving(plan), transport.mass(x)
        rows = (ways.leaving(plan) - x).sign().flatten(2).unsqueeze(2)
        over = (ways.price(plan) > eps * total) / total.clamp_min(torch.finfo(x.dtype).tiny)
        worth = ways.to_targets(gradient - self.box_penalty * (after > 1))
        worth = worth - self.row_penalty * rows - self.cost_penalty * per_row(over, plan) * ways.cost
        return 2 * plan * (1 - plan) * worth
