"""Which attacks of other libraries ours are compared with, and with which budgets: the same for all of a contest."""

from __future__ import annotations

from typing import NamedTuple

from algorithms.attacks import Attack
from algorithms.search import Policy
from benchmarks.rivals import Contestant


class Contest(NamedTuple):
    """One of our attacks, and others' of the same name."""

    name: str
    ours: Attack
    theirs: dict[str, Contestant]  # by library
    images: int = 32  # as many as the dearest contestant lets a benchmark of some minutes have
    seeds: int = 1  # each gives every contestant other random numbers
    policy: Policy = "first success"
