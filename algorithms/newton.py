"""Newton's steps towards a class and a confidence: the thesis's high-confidence attack and its differentiable form.

(Matyasko 2021, https://doi.org/10.32657/10356/143316, section 4.4, algorithm 1.) The least l2 step that brings the
linearised log-likelihood of class t from log p_t to log C is

    r = (log C - log p_t) / ||w||^2 * w,    w = grad_x log p_t,

which (4.8) prints without its direction. log p_t is concave in the logits' gap, so the iterates come from below and
never arrive: a push of `PUSH` beyond the goal, or an overshoot, ends it. For one logit's gap it is Newton's method.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import balls
from algorithms.gradients import predict
from algorithms.tensors import Images, Labels, Logits, PerRow, per_row

PUSH = 1e-4  # beyond where the linearised likelihood reaches the goal, in pixel units
SMOOTH = 1e-8  # added to the square of a gradient's norm, so that it has a derivative where it is zero


def log_probability(logits: Logits, target: Labels) -> PerRow:
    """The logarithm of the likelihood that the logits give the target."""
    return functional.log_softmax(logits, 1).gather(1, target.unsqueeze(1)).squeeze(1)


def newton_step(reached: PerRow, goal: PerRow, slope: Images, push: float = PUSH) -> Images:
    """The least l2 step from a log-likelihood of `reached`, whose gradient is `slope`, to one of `goal`; and `push`."""
    norm = ((slope**2).flatten(1).sum(1) + SMOOTH).sqrt()
    return per_row(((goal - reached).abs() / norm + push) / norm, slope) * slope


def nearest_class(logits: Logits, gradients: Tensor, source: Labels) -> Labels:
    """The class whose linearised boundary with `source` is nearest in l2. Equation 8 of DeepFool.

    `gradients` (batch, classes, channels, height, width): of the logits, or of their gaps to that of `source`.
    """
    own = source.unsqueeze(1)
    gaps = (logits.gather(1, own) - logits).abs()
    slopes = gradients - gradients.take_along_dim(source.view(-1, 1, 1, 1, 1), 1)
    sizes = balls.size(slopes.flatten(0, 1), "l2").view_as(gaps)
    distances = torch.where(sizes > 0, gaps / sizes, torch.finfo(gaps.dtype).max)
    return distances.scatter(1, own, torch.inf).argmin(1)


def still_short(probability: PerRow, confidence: PerRow) -> PerRow:
    """1 where the probability is below the confidence, else 0; differentiated as if it were sigmoid(confidence - p).

    (Straight-through: Bengio et al. 2013, https://arxiv.org/abs/1308.3432.)
    """
    soft = torch.sigmoid(confidence - probability)
    return soft + (soft.round() - soft).detach()


def unrolled(
    model: nn.Module, x: Images, target: Labels, confidence: PerRow, *, steps: int = 5, overshoot: float = 0.05
) -> Images:
    """High-confidence images that can be differentiated for the model's parameters, for training through the attack.

    Perturbations go through every step's gradient and likelihood, not through the point where these were taken: that is
    cut. Five steps reach confidences up to 0.95. The images may leave [0, 1]. The model's mode is the caller's. One
    forward and one backward pass a step, and a derivative of the latter.
    """
    goal = confidence.clamp_min(torch.finfo(x.dtype).tiny).log()
    delta, short = torch.zeros_like(x), torch.ones_like(goal)
    for _ in range(steps):
        here = (x + (1 + overshoot) * delta).detach().requires_grad_(True)
        reached = log_probability(predict(model, here), target)
        (slope,) = torch.autograd.grad(reached.sum(), here, create_graph=True)
        short = short * still_short(reached.exp(), confidence)
        delta = delta + per_row(short, delta) * newton_step(reached, goal, slope)
    return x + (1 + overshoot) * delta
