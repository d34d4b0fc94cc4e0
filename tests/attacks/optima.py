"""The smallest perturbation of an affine model's images that changes the class and stays in the box, in closed form.

To cross the boundary to a rival a perturbation r must gain <w, r> = gap. Each pixel can go as far as the box lets it in
the direction of its weight; the norms differ in how the gain is best shared among the pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.networks import Affine, classes_of

Array = NDArray[np.float64]


def smallest(model: Affine, x: Tensor, norm: str, target: int | None = None) -> Tensor:
    """The norm of each row's smallest adversarial perturbation (up to the boundary itself)."""
    weight, pixels = model.weight.detach().double().numpy(), x.double().flatten(1).numpy()
    logits, y = model.double()(x.double()).detach().numpy(), classes_of(model.double(), x.double()).tolist()
    model.to(x.dtype)
    rivals = range(len(weight)) if target is None else [target]
    best = [
        min(reach(row, weight[k] - weight[own], z[own] - z[k], norm) for k in rivals if k != own)
        for row, z, own in zip(pixels, logits, y, strict=True)
    ]
    return torch.tensor(best, dtype=x.dtype)


def reach(x: Array, w: Array, gap: float, norm: str) -> float:
    """The least norm that gains `gap` along `w` from `x`; infinite if the box does not let it."""
    room, slope = np.where(w > 0, 1 - x, x), np.abs(w)
    if room @ slope < gap:
        return np.inf
    if norm == "l0":
        return float((np.sort(room * slope)[::-1].cumsum() <= gap).sum() + 1)
    if norm == "l1":
        order = np.argsort(-slope)
        before = (slope * room)[order].cumsum() - (slope * room)[order]
        return float(np.clip((gap - before) / slope[order], 0, room[order]).sum())
    low, high = 0.0, 1e6
    for _ in range(200):  # how far along the steepest direction, each pixel up to its end
        middle = (low + high) / 2
        step = np.minimum(room, middle if norm == "linf" else middle * slope)
        low, high = (low, middle) if step @ slope >= gap else (middle, high)
    step = np.minimum(room, high if norm == "linf" else high * slope)
    return float(step.max() if norm == "linf" else np.linalg.norm(step))


def affine(classes: int = 10, side: int = 14, rows: int = 16, scale: float = 0.2) -> tuple[Affine, Tensor, Tensor]:
    """A random affine model, random images of which some pixels are exactly 0 or 1, and what it predicts for them."""
    rng = torch.Generator().manual_seed(11)
    model = Affine(scale * torch.randn(classes, side * side, generator=rng))
    x = (1.4 * torch.rand(rows, 1, side, side, generator=rng) - 0.2).clamp(0, 1)
    return model, x, classes_of(model, x)


def two_pixels(*weight: float, bias: float = 0.0, x: tuple[float, ...]) -> tuple[Affine, Tensor, Tensor]:
    """Two classes and few pixels, for cases worked by hand: the second logit minus the first is <weight, x> + bias."""
    w = torch.tensor([[0.0] * len(weight), list(weight)], dtype=torch.float64)
    model = Affine(w, torch.tensor([0.0, bias], dtype=torch.float64))
    image = torch.tensor(x, dtype=torch.float64).view(1, 1, 1, -1)
    return model, image, classes_of(model, image)
