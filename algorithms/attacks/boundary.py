"""The boundary attack (Brendel et al. 2018, https://arxiv.org/abs/1712.04248, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from algorithms import balls, checks, losses, starts
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Counts, Images, Mask, PerRow, per_row

PROBES = 5  # every so many queries one only tries the sideways step
ASKED = 20  # outcomes of a kind after which its step is adapted
FACTOR = 1.5  # of a step that is adapted
DEAD = 1e-7  # share of the distance below which steps forward are not worth a query


class Tally(NamedTuple):
    """A step's length as a share of the distance, and how often it has lately led to a wrong class."""

    length: PerRow
    asked: Counts
    fooled: Counts


class Walk(NamedTuple):
    """Where the rows stand."""

    x_adv: Images  # of a wrong class
    aside: Tally
    ahead: Tally


@final
@dataclass(frozen=True, kw_only=True)
class Boundary(Attack):
    """Walks along the decision boundary towards the image, asking for nothing but the predicted class.

    For models that give no gradient and no scores: a program, a vote, a rounded output. It begins at noise of a wrong
    class, steps aside on the sphere around the image and then ahead, and stays where it is unless the class there is
    wrong. Steps grow and shrink so that half of those aside, and a fifth of those ahead, succeed. It takes
    thousands of queries; with gradients `brendel_bethge` walks the same way in hundreds.

    Each step is one query, a forward pass. A search makes some dozens more to find its start, and a row for which no
    noise has a wrong class (a targeted one, most often) is given up.
    """

    minimal: ClassVar[bool] = True
    norm: Literal["l2"] = "l2"
    steps: int = 25000  # queries
    restarts: int = 1  # each from noise of its own; a walk may end at a boundary that is not the nearest
    draws: int = 16  # noise images that are tried for a start
    aside: float = 0.01  # share of the distance that the first steps go sideways
    ahead: float = 0.01  # share of the distance that the first steps go forward
    loss: Loss = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("steps", self.steps, 1, "a number of queries")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.at_least("draws", self.draws, 1, "a number of noise images")
        checks.between("aside", self.aside, 0, 1, "a share of the distance")
        checks.between("ahead", self.ahead, 0, 1, "a share of the distance")

    def start(self, problem: Problem) -> Walk:
        """Points at the boundary, on the way from the clean images to noise."""
        x_adv, found = starts.at_the_boundary(problem, self.draws)
        problem.finish(~found | (x_adv == problem.x).flatten(1).all(1))
        ones, none = torch.ones_like(problem.x[:, 0, 0, 0]), torch.zeros_like(problem.y)
        return Walk(x_adv, Tally(self.aside * ones, none, none), Tally(self.ahead * ones, none, none))

    def step(self, problem: Problem, state: Walk, k: int) -> Walk:
        """Asks about a step aside and ahead, or every few queries, to see how it goes, about one aside alone."""
        probing = k % PROBES == 0
        noise = problem.streams.normal(tuple(problem.x.shape[1:]), k, dtype=problem.x.dtype)
        ahead = torch.zeros_like(state.ahead.length) if probing else state.ahead.length
        x_adv = proposal(problem.x, state.x_adv, noise, state.aside.length, ahead)
        fooled = losses.fooled(problem.predict(x_adv), problem.y, targeted=self.targeted)
        aside, ahead_tally = state.aside, state.ahead
        if probing:
            aside, grown = adapted(aside, fooled, 0.2, 0.5)
            ahead_tally = ahead_tally._replace(length=ahead_tally.length * grown)
        else:
            ahead_tally, _ = adapted(ahead_tally, fooled, 0.1, 0.25)
        problem.finish(ahead_tally.length < DEAD)
        if k == self.steps - 1:
            problem.finish(torch.ones_like(fooled))  # all have been judged
        return Walk(torch.where(per_row(fooled, x_adv), x_adv, state.x_adv), aside, ahead_tally)


def proposal(x: Images, x_adv: Images, noise: Images, aside: PerRow, ahead: PerRow) -> Images:
    """A step of `aside` times the distance along the sphere around `x`, then of `ahead` times it towards `x`.

    What the box has cut off the step aside counts as a step ahead.
    """
    home = x - x_adv
    distance = balls.size(home, "l2").clamp_min(1e-30)
    unit = home / per_row(distance, x)
    across = noise - per_row((noise * unit).flatten(1).sum(1), x) * unit
    across = balls.steepest(across, "l2") * per_row(aside * distance, x)
    on_sphere = (x + (across - home) / per_row((1 + aside**2).sqrt(), x)).clamp(0, 1)
    left = balls.size(x - on_sphere, "l2")
    share = ((left - (1 - ahead) * distance) / left.clamp_min(1e-30)).clamp(0, 1)
    return (on_sphere + per_row(share, x) * (x - on_sphere)).clamp(0, 1)


def adapted(tally: Tally, fooled: Mask, low: float, high: float) -> tuple[Tally, PerRow]:
    """The tally with one more outcome, and the factor by which its length has changed.

    After every `ASKED` outcomes a step grows if more than a share `high` fooled, and shrinks if less than `low` did.
    """
    asked, wrong = tally.asked + 1, tally.fooled + fooled
    due, share = asked >= ASKED, wrong / asked
    up, down = due & (share > high), due & (share < low)
    factor = torch.where(up, FACTOR, torch.where(down, 1 / FACTOR, 1.0)).to(tally.length)
    return Tally(tally.length * factor, torch.where(due, 0, asked), torch.where(due, 0, wrong)), factor
