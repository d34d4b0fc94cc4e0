"""The search for how much a wrong class is worth against a small norm, as Carlini and Wagner make it.

(2017, https://arxiv.org/abs/1608.04644, section VI.) A row descends norm + worth * hinge(margin) several times. After a
descent that fooled, the worth was too high and is halved towards what failed; after one that did not, it is raised
tenfold until something fools. Every row counts its own steps, so one that stops early begins its next descent at once:
where nothing moves it, and where it gets no lower from one check to the next. A descent may go up at some checks in a
row: Adam and FISTA do now and then, which in a whole batch, where Carlini and Wagner look, evens out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from algorithms import checks
from algorithms.tensors import Counts, Images, Mask, PerRow

RAISED = 10.0  # factor on a worth that never fooled
CHECKS = 20  # how often a descent is asked whether it still gets lower
PATIENCE = 4  # checks in a row without progress that end one that has fooled
PATIENCE_UNFOOLED = 2  # that end one that has not
PROGRESS = 0.9999  # it does if the objective has fallen below this share of what it was


class Search(NamedTuple):
    """What is known of each row's worth."""

    worth: PerRow
    low: PerRow  # the largest that did not fool
    high: PerRow  # the smallest that fooled, infinite while there is none
    age: Counts  # steps of this descent
    descents: Counts  # finished before this one
    fooled: Mask  # this descent has fooled
    objective: PerRow  # when progress was last checked
    stalls: Counts  # checks in a row that saw none


def check(steps: int, searches: int, worth: float) -> None:
    """Raises ValueError for numbers that make no sense."""
    checks.at_least("searches", searches, 1, "a number of descents")
    checks.at_least("steps", steps, searches, "the steps of all searches together, one each at least")
    checks.at_least("worth", worth, 1e-12, "what a wrong class is worth against the norm, at first")


def start(x: Images, worth: float) -> Search:
    """Before the first descent."""
    first = torch.full_like(x[:, 0, 0, 0], worth)
    none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    endless = torch.full_like(first, torch.inf)
    return Search(first, torch.zeros_like(first), endless, none, none, none.bool(), endless, none)


def advance(
    search: Search, fooled: Mask, objective: PerRow, steps: int, still: Mask | None = None
) -> tuple[Search, Mask]:
    """After a step of a descent of at most `steps`; also which rows begin a new descent with the next step.

    A row that is `still` will not move any more, and its descent ends here.
    """
    fooled, age = search.fooled | fooled, search.age + 1
    checked = age % max(1, steps // CHECKS) == 0
    stalls = torch.where(objective > PROGRESS * search.objective, search.stalls + 1, 0)
    stalls, objective = torch.where(checked, stalls, search.stalls), torch.where(checked, objective, search.objective)
    over = (age >= steps) | (stalls >= torch.where(fooled, PATIENCE, PATIENCE_UNFOOLED))
    over = over if still is None else over | still
    low = torch.where(over & ~fooled, torch.maximum(search.low, search.worth), search.low)
    high = torch.where(over & fooled, torch.minimum(search.high, search.worth), search.high)
    narrowed = torch.where(high.isinf(), search.worth * RAISED, (low + high) / 2)
    return Search(
        worth=torch.where(over, narrowed, search.worth),
        low=low,
        high=high,
        age=torch.where(over, 0, age),
        descents=search.descents + over,
        fooled=fooled & ~over,
        objective=torch.where(over, torch.inf, objective),
        stalls=torch.where(over, 0, stalls),
    ), over
