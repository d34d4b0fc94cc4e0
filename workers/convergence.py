"""How far attacks have converged, as columns and paths: for rows of an evaluation and for examples of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.balls import Norm
from algorithms.diagnostics.convergence import Ball, Converged, ball_of, converged, trajectory
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels, Mask

Floats = NDArray[np.float64]


@final
@dataclass(frozen=True, kw_only=True)
class Convergence:
    """Training examples as an attacker made them: columns with a row an example."""

    index: NDArray[np.int64]  # of the example within the training part
    label: NDArray[np.int64]
    fosc: Floats  # first-order condition over the ball
    fosc_box: Floats  # over the images in the ball
    loss: Floats  # cross-entropy
    fooled: NDArray[np.bool_]
    backwards: NDArray[np.int64]  # gradients that the example took


def nowhere() -> Floats:
    """A path without points."""
    return np.empty((0, 0))


def conditions(
    model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rows: Mask, attack: Attack | None
) -> tuple[Floats, Floats]:
    """The condition of `rows`, over the ball and over the images in it; NaN for the others and without a ball."""
    both = np.full((2, len(x)), np.nan)
    ball = None if attack is None else ball_of(attack)
    if ball is not None and rows.any():
        found = converged(model, x[rows], x_adv[rows], y[rows], ball)
        both[:, rows.cpu().numpy()] = torch.stack([found.fosc, found.fosc_box]).cpu().numpy()
    return both[0], both[1]


def paths(model: nn.Module, x: Images, y: Labels, attack: Attack | None, streams: Streams) -> tuple[Floats, Floats]:
    """Condition and loss at each point of the attack, (points, rows); no point where there is no ball to search."""
    ball = None if attack is None or attack.targeted else ball_of(attack)
    if attack is None or ball is None or not len(x):
        return nowhere(), nowhere()
    way = trajectory(attack, model, x, y, ball, rng=streams)
    return _array(way.fosc.double()), _array(way.loss.double())


def columns(found: Converged, index: NDArray[np.int64], y: Labels, backwards: Tensor) -> Convergence:
    """What was found of training examples, as arrays."""
    return Convergence(
        index=index.astype(np.int64),
        label=_array(y),
        fosc=_array(found.fosc.double()),
        fosc_box=_array(found.fosc_box.double()),
        loss=_array(found.loss.double()),
        fooled=_array(~found.right),
        backwards=_array(backwards),
    )


def ball_of_training(defense: object) -> Ball | None:
    """The ball that a defense's attackers search, if it has one: that of its attack, or its own norm and radius."""
    attack = getattr(defense, "attack", None)
    if isinstance(attack, Attack):
        return ball_of(attack)
    norm: Norm = getattr(defense, "norm", "l0")
    eps: float | None = getattr(defense, "eps", None)
    return None if norm == "l0" or eps is None else Ball(norm, eps)


def _array(tensor: Tensor) -> Any:
    """A NumPy copy on the CPU."""
    return tensor.detach().cpu().numpy().copy()
