"""PGD against the floor: a bare loop of as many forward and backward passes, in plain torch (cnn4, MNIST's shape)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.attacks.pgd import PGD
from algorithms.models.cnn4 import Cnn4
from algorithms.search import search
from benchmarks.measuring import CPU, Row, compare

BATCH, STEPS, EPS = 256, 10, 0.3


def bare_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradients for the input alone, sign steps, both projections, and one last forward pass."""
    x_adv = x + EPS * (2 * torch.rand_like(x) - 1)
    for _ in range(STEPS):
        x_adv = x_adv.clamp(0, 1).requires_grad_(True)
        loss = functional.cross_entropy(model(x_adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach() + EPS / 4 * gradient.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - EPS), x + EPS)
    with torch.no_grad():
        model(x_adv.clamp(0, 1))
    return x_adv


def run() -> list[Row]:
    """No example leaves early: the policy is the training's."""
    torch.manual_seed(0)
    model = Cnn4().build((1, 28, 28), 10).eval().requires_grad_(False)
    x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    attack = PGD(eps=EPS, step_size=EPS / 4, steps=STEPS)
    rng = torch.Generator().manual_seed(0)
    ours = lambda: search(attack, model, x, y, rng=rng, policy="highest loss")  # noqa: E731
    return [compare(("PGD-10, cnn4, batch 256", "the bare loop"), ours, lambda: bare_loop(model, x, y), CPU, 15)]
