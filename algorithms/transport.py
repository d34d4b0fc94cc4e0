"""Moving the mass of pixels: images within a Wasserstein ball around an image.

(Wong et al. 2019, https://arxiv.org/abs/1902.07906, section 3.) A transport plan says how much of each pixel's mass
goes to which pixel of the same channel; its cost is that mass times the distance to a power, and an image is in the
ball of radius eps if some plan that makes it costs at most eps times the mass of the whole image, all channels
together. Here a plan is written as its *moves* alone: what leaves a pixel for another one. What stays is the rest, so
mass is kept whatever the moves are, to scale the moves scales the cost, and no move at all is the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from algorithms import checks
from algorithms.tensors import Images, PerRow, per_row

Metric = Literal["l2", "l1"]  # how far two pixels are apart: as the crow flies, or along rows and columns
Power = Literal[1, 2]  # of that distance, in a move's cost
Moves = Float[Tensor, "batch channels targets sources"]  # mass; `sources` are the pixels, `targets` where each can send

SWEEPS = 40  # in which pixels above 1 send back their excess, before those that are left send back all they got


class Costs(NamedTuple):
    """What a move may be, and what it costs; `algorithms.transport_distance` measures by it."""

    window: int  # side of the square that a pixel's mass stays in; 0: the whole image
    power: Power
    metric: Metric


def check(eps: float, window: int, growth: float, every: int) -> None:
    """Raises ValueError for a ball or a schedule of radii that makes no sense."""
    checks.at_least("eps", eps, 0, "a cost of transport per unit of mass, in pixels to the power `power`")
    if window < 0 or (window % 2 == 0 and window != 0):
        raise ValueError(f"window: an odd number of pixels, or 0 for the whole image, not {window}")
    checks.between("growth", growth, 1, 100, "a factor on the radius")
    checks.at_least("every", every, 1, "steps between two radii")


def radius(eps: float, growth: float, every: int, k: int) -> float:
    """The radius at step `k`, counted from 0: `growth` times larger every so many steps (Wong et al., section 5.1)."""
    return float(eps * growth ** (k // every))


def mass(x: Images) -> PerRow:
    """The sum of all pixels of a row."""
    return x.flatten(1).sum(1)


@final
@dataclass(frozen=True)
class Routes:
    """Where each pixel can send mass, and at what cost. `side` is the window's, 0 where every pixel can reach all."""

    shape: tuple[int, int]  # height and width
    side: int
    cost: Tensor  # (targets, sources); 0 to stay, and where there is no pixel
    moving: Tensor  # (targets, sources) bool: the target is another pixel
    staying: Tensor  # (targets, sources) bool: the target is the source

    def to_targets(self, values: Images) -> Moves:
        """For each source and target the value at the target; 0 outside of the image."""
        if self.side == 0:
            flat = values.flatten(2)
            return flat.unsqueeze(3).expand(-1, -1, -1, flat.shape[2])
        padded = functional.pad(values, [self.side // 2] * 4)
        seen = padded.unfold(2, self.shape[0], 1).unfold(3, self.shape[1], 1)  # a view: twice as fast as im2col
        return seen.reshape(*values.shape[:2], self.side**2, -1)

    def arriving(self, moves: Moves) -> Images:
        """The sum of what arrives at each pixel."""
        batch, channels = moves.shape[:2]
        if self.side == 0:
            return moves.sum(3).view(batch, channels, *self.shape)
        (height, width), side = self.shape, self.side
        total = moves.new_zeros(batch, channels, height + side - 1, width + side - 1)
        for target, moved in enumerate(moves.unbind(2)):
            down, right = divmod(target, side)
            total[..., down : down + height, right : right + width] += moved.view(batch, channels, height, width)
        return total[..., side // 2 : side // 2 + height, side // 2 : side // 2 + width]

    def leaving(self, moves: Moves) -> Images:
        """The sum of what leaves each pixel; of a whole plan, the image that it starts from."""
        return moves.sum(2).view(*moves.shape[:2], *self.shape)

    def price(self, moves: Moves) -> PerRow:
        """The cost of all moves of a row, not divided by its mass."""
        return (moves * self.cost).flatten(1).sum(1)


def routes(x: Images, window: int, power: Power, metric: Metric) -> Routes:
    """All moves within a square window of an odd side around each pixel, or with 0 anywhere in the image.

    A window that reaches every pixel from every pixel is the whole image, and then written as that.
    """
    height, width = x.shape[2:]
    if window == 0 or window >= 2 * max(height, width) - 1:
        rows, columns = (t.flatten().to(x) for t in torch.meshgrid(*map(torch.arange, x.shape[2:]), indexing="ij"))
        down, right = (places.unsqueeze(1) - places for places in (rows, columns))
        inside, window = torch.ones_like(down, dtype=torch.bool), 0
    else:
        offsets = torch.arange(window, device=x.device, dtype=x.dtype) - window // 2
        down, right = (t.reshape(-1, 1) for t in torch.meshgrid(offsets, offsets, indexing="ij"))
        inside = functional.unfold(torch.ones_like(x[:1, :1]), window, padding=window // 2)[0] > 0
    squared = down**2 + right**2 if metric == "l2" else (down.abs() + right.abs()) ** 2
    cost = squared if power == 2 else squared.sqrt()
    staying = (cost == 0) & inside
    return Routes((height, width), window, cost * inside, inside & ~staying, staying)


def arrive(x: Images, moves: Moves, ways: Routes) -> Images:
    """The image after the moves."""
    return x - ways.leaving(moves) + ways.arriving(moves)


def afford(x: Images, moves: Moves, ways: Routes, eps: float) -> Moves:
    """The moves, all smaller by the same share where they cost more than the radius allows."""
    share = eps * mass(x) / ways.price(moves).clamp_min(torch.finfo(x.dtype).tiny)
    return moves * per_row(share.clamp(max=1), moves)


def cap(x: Images, moves: Moves, ways: Routes) -> Moves:
    """The moves, smaller where they would make a pixel brighter than 1. Costs no more than before.

    A pixel above 1 sends its excess back to where it came from, in proportion; that can lift others above 1, which do
    the same. Mass away from home only falls and the image itself is allowed, so this converges. A pixel that is still
    above 1 after `SWEEPS` rounds sends back all it got and stays below from then on, so it ends.
    """
    few = max(4 * torch.finfo(x.dtype).eps, 1e-9)  # an excess that is rounding
    sweep = 0
    while True:
        got = ways.arriving(moves)
        over = x - ways.leaving(moves) + got - 1
        over = torch.where(over > few, over, 0)
        if not over.any():
            return moves
        back = over / got.clamp_min(few) if sweep < SWEEPS else torch.ones_like(over)
        moves = moves * ways.to_targets(torch.where(over > 0, 1 - back, 1).clamp(0, 1))
        sweep += 1


def feasible(x: Images, moves: Moves, ways: Routes, eps: float) -> tuple[Images, Moves]:
    """The image after the moves and the moves themselves, made such that it is in the ball and an image.

    No pixel sends more than it has, the cost is within the radius, and no pixel is brighter than 1.
    """
    sent = ways.leaving(moves)
    share = torch.where(sent > x, x / sent.clamp_min(torch.finfo(x.dtype).tiny), 1)
    kept = cap(x, afford(x, moves * share.flatten(2).unsqueeze(2), ways, eps), ways)
    return arrive(x, kept, ways).clamp(0, 1), kept


def whole(x: Images, moves: Moves, ways: Routes) -> Moves:
    """The whole plan: the moves and what stays."""
    return moves + (x - ways.leaving(moves)).flatten(2).unsqueeze(2) * ways.staying


class Audit(NamedTuple):
    """How far a plan is from what was promised, a number a row; 0, 0, 0 and at most 1 where it is kept."""

    precision: PerRow  # |mass after - mass before| / mass before, the papers' measure: errors of pixels may cancel
    sources: PerRow  # sum over pixels of |what the plan takes there - what is there| / mass
    above: PerRow  # mass above 1, over all mass
    price: PerRow  # cost per unit of mass, over the radius


def audit(x: Images, plan: Moves, ways: Routes, eps: float) -> Audit:
    """The violations of a whole plan. A row without mass has none."""
    total = mass(x).clamp_min(torch.finfo(x.dtype).tiny)
    after, taken = ways.arriving(plan), ways.leaving(plan)
    return Audit(
        precision_error(x, after),
        (taken - x).abs().flatten(1).sum(1) / total,
        (after - 1).clamp_min(0).flatten(1).sum(1) / total,
        ways.price(plan) / total / max(eps, torch.finfo(x.dtype).tiny),
    )


def precision_error(x: Images, x_adv: Images) -> PerRow:
    """The papers' precision error: how much mass came or went, over all mass; 0 for a row without mass."""
    return (mass(x_adv) - mass(x)).abs() / mass(x).clamp_min(torch.finfo(x.dtype).tiny)
