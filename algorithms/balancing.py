"""Transport plans with an entropy that keep to a budget and below the brightest pixel, by a price for each.

The plan that maximises <gain, plan> + temperature * entropy(plan), among those that take from each pixel all that is
there, cost at most the budget and bring no pixel above 1, shares each pixel's mass out by a softmax of
(gain - bright - worth * cost) / temperature. `bright`, one a pixel, and `worth`, one an image, are the multipliers of
the constraints, zero where there is room. A sweep sets both at once to what would be right if the normalisation of the
softmax stayed: the pixels' as in Sinkhorn's iteration for capacities (Benamou et al. 2015,
https://arxiv.org/abs/1412.5154, section 5.1), over-relaxed, and the cost's by a Newton step on the logarithm of the
price, which is convex in `worth`. What is over after the last sweep is for `transport.feasible` to take back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from algorithms.tensors import Images, PerRow, per_row
from algorithms.transport import Moves, Routes, mass

RELAXED = 1.5, 2.0  # times the steps of a pixel's price and of the cost's; the iteration converges below 2, and a new
# normalisation of the softmax takes back about half of what a step on the cost does


class Prices(NamedTuple):
    """The multipliers, in units of the gain; not negative."""

    bright: Images  # of a unit of mass that arrives at a pixel
    worth: PerRow  # of a unit of cost


def free(x: Images) -> Prices:
    """No price on anything."""
    return Prices(torch.zeros_like(x), torch.zeros_like(mass(x)))


def spread(x: Images, gain: Moves, ways: Routes, prices: Prices, temperature: float) -> Moves:
    """The whole plan at these prices. `gain` is minus infinity where there is no way."""
    net = torch.addcmul(gain, per_row(prices.worth, gain), ways.cost, value=-1).sub_(ways.to_targets(prices.bright))
    return torch.softmax(net.div_(temperature), 2).mul_(x.flatten(2).unsqueeze(2))


def sweep(x: Images, gain: Moves, ways: Routes, eps: float, prices: Prices, temperature: float) -> Prices:
    """Prices that come nearer to keeping the constraints: cost eps per unit of mass, and pixels of at most 1."""
    plan, few = spread(x, gain, ways, prices, temperature), torch.finfo(x.dtype).tiny
    cost = ways.cost.flatten()
    price, second = (plan.sum(1).flatten(1) @ torch.stack([cost, cost**2], 1)).unbind(1)
    over = price.clamp_min(few).log() - (eps * mass(x)).clamp_min(few).log()
    step = temperature * over / (second / price.clamp_min(few)).clamp_min(1)  # the cheapest move costs 1
    full = temperature * ways.arriving(plan).clamp_min(few).log()
    bright, worth = prices.bright + RELAXED[0] * full, prices.worth + RELAXED[1] * step
    return Prices(bright.clamp_min(0), worth.clamp_min(0))


def reachable(gain: Moves, ways: Routes) -> Moves:
    """The gain with minus infinity where there is no way."""
    return gain.masked_fill(~(ways.moving | ways.staying), -torch.inf)
