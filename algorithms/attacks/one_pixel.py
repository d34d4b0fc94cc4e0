"""The one-pixel attack (Su et al. 2019, https://arxiv.org/abs/1710.08864, section 3): differential evolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels, per_row

Genes = Float[Tensor, "batch population pixels genes"]  # of a pixel: row and column in [0, 1], then its channels
PLACES, COLOURS, PARENTS, AGAIN = range(4)  # what a row's random numbers are for


class Generation(NamedTuple):
    """Where the rows stand."""

    x_adv: Images  # the last query
    parents: Genes
    fitness: Float[Tensor, "batch population"]
    children: Genes  # in whose turn the queries are; of the first generation, the population itself


@final
@dataclass(frozen=True, kw_only=True)
class OnePixel(Attack):
    """Looks for the place and colour of `eps` pixels, one by default, by differential evolution on the logits.

    Shows how little may be needed, without gradients: it works where a model rounds or is a program. A child is one of
    the population plus `scale` times the difference of two others, and takes the place of its own parent if it raises
    the loss. Robust MNIST networks stand against one pixel; give `eps` more, or use `sigma_zero` where there are
    gradients. Of several pixels `base = "best"` finds far better ones in as many queries; for a single one it looks
    around too little, and settles where a random base goes on.

    How many pixels may change is given, not looked for: a budget attack. The norm counts pixels, whatever their
    channels do. Each step is one query, a forward pass, and a search makes one more: (`generations` + 1) * `population`
    in all at most. A row leaves as soon as it is fooled.
    """

    pixels: ClassVar[bool] = True  # so the record counts, too
    norm: Literal["l0"] = "l0"
    eps: float = 1  # how many pixels may change; a fraction is cut off
    population: int = 400
    generations: int = 100  # after the first, which is drawn at random
    scale: float = 0.5  # of a difference between two of the population (the paper's F)
    base: Literal["random", "best"] = "random"  # which of the population it is added to; the paper's is random
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("eps", self.eps, 0, "a number of pixels")
        checks.at_least("population", self.population, 4, "a number of candidates: a child has four others around it")
        checks.at_least("generations", self.generations, 0, "a number of generations")
        checks.between("scale", self.scale, 0, 2, "a share of a difference")

    @property
    def steps(self) -> int:
        """One a query."""
        return self.population * (self.generations + 1)

    def start(self, problem: Problem) -> Generation:
        """The clean images, and a population with places drawn uniformly and colours from N(0.5, 0.5^2)."""
        x, streams = problem.x, problem.streams
        count = min(max(1, int(self.eps)), x[0, 0].numel())
        problem.predict(x)
        if self.eps < 1:
            problem.finish(torch.ones_like(problem.y, dtype=torch.bool))
        places = streams.fork(PLACES).uniform((self.population, count, 2), dtype=x.dtype)
        colours = 0.5 + 0.5 * streams.fork(COLOURS).normal((self.population, count, x.shape[1]), dtype=x.dtype)
        genes = torch.cat([places, colours.clamp(0, 1)], 3)
        return Generation(x, genes, torch.full_like(genes[:, :, 0, 0], -torch.inf), genes)

    def step(self, problem: Problem, state: Generation, k: int) -> Generation:
        """One child is asked about, and takes its parent's place if it is better."""
        generation, i = divmod(k, self.population)
        if i == 0 and generation:
            best = state.fitness.argmax(1) if self.base == "best" else None
            children = evolved(state.parents, best, self.scale, problem.streams, generation)
            state = state._replace(children=children)
        child = state.children[:, i]
        x_adv = painted(problem.x, child)
        value = problem.loss(problem.predict(x_adv))
        if k == self.steps - 1:
            problem.finish(torch.ones_like(problem.y, dtype=torch.bool))  # all have been judged
        better = value > state.fitness[:, i]
        parents, fitness = state.parents.clone(), state.fitness.clone()
        parents[:, i] = torch.where(per_row(better, child), child, parents[:, i])
        fitness[:, i] = torch.maximum(value, fitness[:, i])
        return Generation(x_adv, parents, fitness, state.children)


def evolved(parents: Genes, best: Labels | None, scale: float, streams: Streams, generation: int) -> Genes:
    """A child for each parent: the best, or another one, plus `scale` times what a second has over a third. Equation 3.

    Colours are clipped to [0, 1], where the best often lie on an edge; a place outside of the image is drawn anew.
    """
    first, second, third = others(parents.shape[1], streams.fork(PARENTS), generation)
    rows = torch.arange(len(parents), device=parents.device).unsqueeze(1)
    if best is not None:
        first = best.unsqueeze(1)
    children = parents[rows, first] + scale * (parents[rows, second] - parents[rows, third])
    places, colours = children[..., :2], children[..., 2:]
    fresh = streams.fork(AGAIN).uniform(tuple(places.shape[1:]), generation, dtype=places.dtype)
    places = torch.where((places < 0) | (places > 1), fresh, places)
    return torch.cat([places, colours.clamp(0, 1)], -1)


def others(count: int, streams: Streams, draw: int) -> list[Int64[Tensor, "batch count"]]:
    """Three of the population for each of its `count` members, distinct and none of them the member itself."""
    drawn = streams.uniform((3, count), draw, dtype=torch.float64)
    taken = [torch.arange(count, device=drawn.device).expand_as(drawn[:, 0])]
    for n in range(3):
        index = (drawn[:, n] * (count - 1 - n)).long()  # among those not yet taken
        for one in torch.stack(taken).sort(dim=0).values:
            index = index + (index >= one)
        taken.append(index)
    return taken[1:]


def painted(x: Images, pixels: Float[Tensor, "batch pixels genes"]) -> Images:
    """The images with some pixels painted over; of two at the same place, the last is seen."""
    height, width = x.shape[2:]
    place = (pixels[:, :, :2] * pixels.new_tensor([height, width])).long()
    place = torch.minimum(place, place.new_tensor([height - 1, width - 1]))
    index, image = place[:, :, 0] * width + place[:, :, 1], x.flatten(2)
    for j in range(pixels.shape[1]):
        where = index[:, j].view(-1, 1, 1).expand(-1, x.shape[1], 1)
        image = image.scatter(2, where, pixels[:, j, 2:].unsqueeze(2))
    return image.view_as(x)
