"""Optimal transport by a solver that shares nothing with the attacks: linear programs by HiGHS.

Images are (channels, height, width) arrays; everything is in float64 and has the whole image as its window unless said.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, sparse
from sklearn.datasets import load_digits
from torch import Tensor

Array = NDArray[np.float64]


def costs(height: int, width: int, power: int, metric: str = "l2") -> Array:
    """The cost between all pairs of pixels."""
    places = np.array([(i, j) for i in range(height) for j in range(width)], dtype=float)
    lengths = np.linalg.norm(places[:, None] - places[None], 2 if metric == "l2" else 1, axis=2)
    return np.asarray(lengths**power)


def distance(x: Tensor, x_adv: Tensor, power: int, metric: str = "l2") -> float:
    """The Wasserstein distance of two images, per unit of mass. The rounding error of each channel's mass is spread."""
    one, other = (image.double().numpy() for image in (x, x_adv))
    matrix, pixels, total = costs(*one.shape[1:], power, metric), one[0].size, 0.0
    sums = sparse.vstack([from_each(pixels), to_each(pixels)]).tocsr()[:-1]  # the last follows from the others
    for before, after in zip(one, other, strict=True):
        if before.sum() > 0:
            moved = after.ravel() * (before.sum() / after.sum())
            total += solved(matrix.ravel(), sums, np.concatenate([before.ravel(), moved])[:-1])
    return total / max(one.sum(), 1e-300)


def distances(x: Tensor, x_adv: Tensor, power: int, metric: str = "l2") -> list[float]:
    return [distance(*pair, power, metric) for pair in zip(x, x_adv, strict=True)]


def best_gain(x: Tensor, slope: Tensor, eps: float, power: int, *, metric: str = "l2", capped: bool = True) -> float:
    """The largest <slope, x' - x> over the ball; without `capped`, over images that may be brighter than 1."""
    image, worth = x.double().numpy(), slope.double().numpy().reshape(x.shape)
    channels, pixels = image.shape[0], image[0].size
    one = costs(*image.shape[1:], power, metric)
    gain = np.concatenate([(w.ravel()[None] - w.ravel()[:, None]).ravel() for w in worth])  # of mass from row to column
    leaving, arriving = (sparse.kron(sparse.eye(channels), sums(pixels)) for sums in (from_each, to_each))
    upper = [sparse.csr_matrix(np.tile(one.ravel(), channels)[None])]
    bounds = [np.array([eps * image.sum()])]
    if capped:
        upper, bounds = [*upper, arriving], [*bounds, np.ones(channels * pixels)]
    return -solved(-gain, leaving, image.ravel(), sparse.vstack(upper), np.concatenate(bounds))


def from_each(pixels: int) -> Any:
    """Sums over the rows of a plan, row after row in one vector."""
    return sparse.kron(sparse.eye(pixels), np.ones((1, pixels)))


def to_each(pixels: int) -> Any:
    """Sums over its columns."""
    return sparse.kron(np.ones((1, pixels)), sparse.eye(pixels))


def solved(worth: Array, sums: Any, equal: Array, upper: Any = None, bounds: Array | None = None) -> float:
    """The least <worth, plan> of a plan with these sums."""
    found = optimize.linprog(worth, upper, bounds, sums, equal, method="highs")
    assert found.success, found.message
    return float(found.fun)


@cache
def digits(count: int) -> tuple[Tensor, Tensor]:
    """Images of 8x8 handwritten digits in [0, 1], float64, and their labels."""
    bunch = load_digits()
    return torch.tensor(bunch.images[:count] / 16).unsqueeze(1), torch.tensor(bunch.target[:count], dtype=torch.int64)
