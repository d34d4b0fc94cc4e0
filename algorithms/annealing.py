"""How a step length falls in the course of an attack: from `first` to `last` while `progress` goes from 0 to 1."""

from __future__ import annotations

import math


def linear(first: float, last: float, progress: float) -> float:
    """By equal amounts."""
    return first + (last - first) * progress


def exponential(first: float, last: float, progress: float) -> float:
    """By equal factors."""
    return float(first * (last / first) ** progress)


def cosine(first: float, last: float, progress: float) -> float:
    """Along half a period of a cosine (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
