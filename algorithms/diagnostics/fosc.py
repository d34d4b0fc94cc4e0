"""First-order stationary condition: how much a perturbation could still gain, had the loss no curvature.

Wang et al. 2019 (https://arxiv.org/abs/2112.08304), equation 4: c(x_adv) is the largest <z - x_adv, gradient> over the
points z that an attacker may choose, the Frank-Wolfe gap. For the l-infinity ball that is
eps * |gradient|_1 - <x_adv - x, gradient>. It is zero at stationary points and never negative in the ball. The gradient
is that of each example's own loss, not of a mean.

The paper leaves out that pixels end at 0 and 1. Where an attack keeps to them, a pixel that is held by that edge keeps
c positive for good; with `box=True` z is an image too, and c reaches zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algorithms import balls, losses
from algorithms.balls import Norm
from algorithms.gradients import differentiate, predict
from algorithms.modes import frozen
from algorithms.tensors import Images, Labels, PerRow


def fosc(x: Images, x_adv: Images, gradient: Images, norm: Norm, eps: float, *, box: bool = False) -> PerRow:
    """The condition at `x_adv`, from the loss's `gradient` there; `x` is the clean image, the middle of the ball."""
    gap: Tensor = (farthest(x, gradient, norm, eps, box=box) - x_adv) * gradient
    return gap.flatten(1).sum(1)


def farthest(x: Images, gradient: Images, norm: Norm, eps: float, *, box: bool = False) -> Images:
    """The point of the ball around `x` where a linear function with that gradient is largest; with `box`, an image."""
    if norm == "l0":
        raise ValueError("norm: the first-order condition needs a convex ball: linf, l2 or l1, not l0")
    if not box:
        return x + eps * balls.steepest(gradient, norm)
    if norm == "linf":
        return (x + eps * gradient.sign()).clamp(0, 1)
    room = torch.where(gradient > 0, 1 - x, x).flatten(1)
    slope = gradient.abs().flatten(1) * (room > 0)
    length = _within(room, slope, eps) if norm == "l2" else _steepest_first(room, slope, eps)
    return (x + gradient.sign() * length.view_as(x)).clamp(0, 1)


def weak_conditions(model: nn.Module, x: Images, y: Labels, norm: Norm, eps: float, *, box: bool = False) -> PerRow:
    """The condition of weak examples, one FGSM step in the box from each image.

    Their mean over a batch, with the model at its initialisation, is a `c_max` for the defense `dynamic` (section 4.1).
    """
    with frozen(model):
        weak = farthest(x, input_gradient(model, x, y), norm, eps, box=True)
        return fosc(x, weak, input_gradient(model, weak, y), norm, eps, box=box)


def input_gradient(model: nn.Module, x: Images, y: Labels) -> Images:
    """Gradient of each example's cross-entropy for its own pixels, in the mode that the model is in."""
    x = x.detach().requires_grad_(True)
    return differentiate(losses.cross_entropy(predict(model, x), y), x)


def _steepest_first(room: Tensor, slope: Tensor, eps: float) -> Tensor:
    """Steps of l1 length `eps` in all: the steepest entry takes what it has room for, then the next."""
    order = slope.argsort(dim=1, descending=True, stable=True)
    ordered = room.gather(1, order)
    taken = torch.minimum(ordered, (eps - (ordered.cumsum(1) - ordered)).clamp_min(0))
    return torch.zeros_like(room).scatter(1, order, taken)


def _within(room: Tensor, slope: Tensor, eps: float) -> Tensor:
    """Steps min(t * slope, room), with the t that makes their l2 length `eps`, or as long as there is room.

    The squared length is known between the corners where one entry after the other has used its room.
    """
    slope = slope / slope.amax(1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
    corners, order = (room / slope).sort(dim=1)  # infinite or NaN, hence last, where nothing is to be gained
    room_used = room.gather(1, order).square().cumsum(1)
    steepness = slope.gather(1, order).square()
    moving = steepness.flip(1).cumsum(1).flip(1) - steepness  # of the entries that go on after each corner
    full = (room_used + corners.square() * moving <= eps**2).sum(1, keepdim=True)  # entries at their edge
    used = torch.cat([torch.zeros_like(room_used[:, :1]), room_used], 1).gather(1, full)
    left = torch.cat([steepness.sum(1, keepdim=True), moving], 1).gather(1, full)
    t = ((eps**2 - used).clamp_min(0) / left.clamp_min(1e-30)).sqrt()
    return torch.minimum(t * slope, room)
