"""Slopes of a loss by central differences, one parameter after the other, for networks of a few dozen of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from algorithms.defenses import Defense
from tests.networks import Affine

H = 1e-5


def tiny() -> nn.Sequential:
    """Three classes, images of 2x2 pixels, batch norm and a smooth activation, in float64 and in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3))
    return model.double().train()


def batch(rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Images, images near them, labels."""
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(rows, 1, 2, 2, generator=rng, dtype=torch.float64)
    x_adv = (x + 0.3 * torch.randn(rows, 1, 2, 2, generator=rng, dtype=torch.float64)).clamp(0, 1)
    return x, x_adv, torch.arange(rows) % 3


def differences(model: nn.Module, loss: Callable[[], Tensor]) -> list[Tensor]:
    """Central differences of `loss` for every entry of every parameter."""
    slopes = []
    with torch.no_grad():
        for parameter in model.parameters():
            slope = torch.zeros_like(parameter)
            for i in range(parameter.numel()):
                entry = parameter.view(-1)[i : i + 1]
                entry += H
                above = loss().item()
                entry -= 2 * H
                slope.view(-1)[i] = (above - loss().item()) / (2 * H)
                entry += H
            slopes.append(slope)
    return slopes


def assert_slopes(defense: Defense, loss: Callable[[nn.Module], Tensor] | None = None) -> None:
    """The gradient of the defense's loss is that of differences, of `loss` where some of its terms are held fixed."""
    model, (x, x_adv, y) = tiny(), batch()

    def own() -> Tensor:
        return defense.loss(model, x, x_adv, y, rng=torch.Generator())

    found = torch.autograd.grad(own(), list(model.parameters()))
    expected = differences(model, own if loss is None else lambda: loss(model))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


def loss_by_hand(defense: Defense) -> float:
    """The loss for one pixel v and logits (2 v, 0), clean at v = 0.5 and adversarial at v = -0.5, both of class 0.

    The clean logits are (1, 0) and the adversarial ones (-1, 0): the two predictions are mirror images.
    """
    model = Affine(torch.tensor([[2.0], [0.0]], dtype=torch.float64))
    half, zeros = torch.full((2, 1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    return defense.loss(model, half, -half, zeros, rng=torch.Generator()).item()
