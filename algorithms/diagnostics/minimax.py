"""The convergence theorem of adversarial training with estimated constants (Wang et al. 2019, Theorem 1).

https://arxiv.org/abs/2112.08304: if the loss f(theta, x) is smooth and mu-strongly concave in x within the balls, and
examples have a first-order condition of delta at most, then T steps of SGD find parameters where the expected squared
gradient of the robust loss is at most 4 sigma sqrt(L Delta / T) + 5 L_tx^2 delta / mu, with L = L_tx L_xt / mu + L_tt.
The printed step size lacks a pair of brackets: it is min(1 / L, sqrt(Delta / (L sigma^2 T))).

All constants are suprema that nobody knows. Here each is the most (of mu: the least) that was seen on some examples, so
a bound made of them is an estimate and proves nothing. Where the loss is not concave the theorem says nothing at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from algorithms import losses
from algorithms.modes import evaluating
from algorithms.tensors import Images, Labels

Values = Callable[[Tensor, Labels], Tensor]  # of outputs and labels: the loss, a number a row
Parameters = dict[str, Tensor]
STEP = 1e-2  # how far parameters are moved, relative to their norm


class Constants(NamedTuple):
    """What was seen of the theorem's constants; norms are Euclidean."""

    parameters: float  # L_tt: change of the parameters' gradient with the parameters
    mixed: float  # L_tx: change of the parameters' gradient with the image
    inputs: float  # L_xt: change of the image's gradient with the parameters
    concavity: float  # mu: least decrease of the image's gradient along a line; negative where the loss is not concave
    variance: float  # sigma^2 of a batch's gradient


class Bound(NamedTuple):
    """The two terms of the bound; infinite where the loss is not strongly concave."""

    optimisation: float  # falls with the square root of the number of steps
    attack: float  # what the attack leaves: it does not fall


class _Slopes(NamedTuple):
    """Gradients of one example's loss."""

    parameters: Tensor  # flat
    image: Tensor  # flat


def estimate(
    model: nn.Module, pair: tuple[Images, Images], y: Labels, batch: int, value: Values = losses.cross_entropy
) -> Constants:
    """Constants from pairs of images, two in each example's ball, and parameters moved a little down the mean gradient.

    `batch` is the number of examples of a training step. Eight passes an example, one example after the other; the
    model is left as it was.
    """
    here: Parameters = {name: p.detach() for name, p in model.named_parameters()}
    with evaluating(model):
        moved, distance = _moved(model, here, pair[0], y, value)
        seen, total, squares = [], torch.zeros(()), 0.0
        for one, other, label in zip(*(images.split(1) for images in pair), y.split(1), strict=True):
            at, beside, later = (
                _slopes(model, parameters, image, label, value)
                for parameters, image in ((here, one), (here, other), (moved, one))
            )
            seen.append(_seen(at, beside, later, (one - other).flatten(), distance))
            total, squares = total.to(at.parameters) + at.parameters, squares + at.parameters.square().sum().item()
    spread = (squares - total.square().sum().item() / len(y)) / max(1, len(y) - 1)
    parameters, mixed, inputs, concavity = zip(*seen, strict=True)
    return Constants(max(parameters), max(mixed), max(inputs), min(concavity), max(0.0, spread) / batch)


def bound(constants: Constants, delta: float, gap: float, steps: int) -> Bound:
    """The theorem's terms. `gap`: robust loss at the start less the smallest; `steps` of SGD."""
    if constants.concavity <= 0:
        return Bound(math.inf, math.inf)
    smoothness = constants.mixed * constants.inputs / constants.concavity + constants.parameters
    first = 4 * math.sqrt(constants.variance * smoothness * gap / steps)
    return Bound(first, 5 * constants.mixed**2 * delta / constants.concavity)


def _moved(model: nn.Module, here: Parameters, x: Images, y: Labels, value: Values) -> tuple[Parameters, float]:
    """Parameters a little down the mean gradient over the examples, and how far that is."""
    leaves = {name: p.clone().requires_grad_(True) for name, p in here.items()}
    slopes = torch.autograd.grad(value(functional_call(model, leaves, (x,)), y).mean(), list(leaves.values()))
    length = _norm(slopes)
    distance = STEP * max(_norm(here.values()), 1e-12)
    share = distance / length if length > 0 else 0.0
    return {name: p - share * slope for (name, p), slope in zip(here.items(), slopes, strict=True)}, share * length


def _norm(tensors: Iterable[Tensor]) -> float:
    """The Euclidean norm of some tensors together."""
    return math.sqrt(sum(t.double().square().sum().item() for t in tensors))


def _slopes(model: nn.Module, parameters: Parameters, x: Images, y: Labels, value: Values) -> _Slopes:
    leaves = {name: p.clone().requires_grad_(True) for name, p in parameters.items()}
    image = x.detach().clone().requires_grad_(True)
    loss = value(functional_call(model, leaves, (image,)), y).sum()
    slopes = torch.autograd.grad(loss, [*leaves.values(), image])
    return _Slopes(torch.cat([slope.flatten() for slope in slopes[:-1]]), slopes[-1].flatten())


def _seen(at: _Slopes, beside: _Slopes, later: _Slopes, way: Tensor, distance: float) -> tuple[float, ...]:
    """L_tt, L_tx, L_xt and mu between two images, `way` from the second to the first, and two sets of parameters."""
    length = way.norm().item()
    return (
        (at.parameters - later.parameters).norm().item() / distance if distance else 0.0,
        (at.parameters - beside.parameters).norm().item() / length if length else 0.0,
        (at.image - later.image).norm().item() / distance if distance else 0.0,
        -((at.image - beside.image) @ way).item() / length**2 if length else math.inf,
    )
