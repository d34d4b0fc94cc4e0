"""An adversary critic, which says whether an image looks like a natural image of a class.

(Matyasko 2021, https://doi.org/10.32657/10356/143316, equations 4.2 to 4.5, which print two signs the wrong way round.)
One output a class; a label does no more than pick the output.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import balls
from algorithms.models import Shape
from algorithms.tensors import Images, Labels, Logits, PerRow

LEAK = 0.2  # slope of the activation below zero


@final
class Critic(nn.Module):
    """Dense layers with leaky ReLU; Gaussian noise is added to what goes into each, always."""

    def __init__(self, shape: Shape, classes: int, hidden: tuple[int, ...], noise: tuple[float, float]) -> None:
        """`noise`: standard deviations at the pixels, and at the layers behind the first."""
        super().__init__()
        widths = [prod(shape), *hidden, classes]
        layers = [nn.Linear(wide, narrow) for wide, narrow in pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        self.noise = (noise[0], *[noise[1]] * len(hidden))
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, a=LEAK)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Images, rng: torch.Generator) -> Logits:
        """Before the sigmoid: how natural each image is as one of each class."""
        values: Tensor = images.flatten(1)
        for place, (layer, spread) in enumerate(zip(self.layers, self.noise, strict=True)):
            if place:
                values = functional.leaky_relu(values, LEAK)
            if spread:
                drawn = torch.randn(values.shape, generator=rng, dtype=values.dtype)
                values = values + spread * drawn.to(values.device)
            values = layer(values)
        return values


def natural(logits: Logits, y: Labels) -> PerRow:
    """-log D_y: what it costs that an image does not look like one of class `y`."""
    return functional.softplus(-picked(logits, y))


def judged(critic: Critic, images: Images, y: Labels, rng: torch.Generator, *, real: bool) -> tuple[PerRow, PerRow]:
    """What a critic that is to call the images `real`, or not, loses on them; and the penalty on its slope.

    The penalty is (||grad z_y|| - 1)^2 at the images themselves, with z_y before the sigmoid: of a gradient, so that it
    is differentiated twice.
    """
    images = images.detach().requires_grad_(True)
    value = picked(critic(images, rng), y)
    (slope,) = torch.autograd.grad(value.sum(), images, create_graph=True)
    return functional.softplus(-value if real else value), (balls.size(slope, "l2") - 1).square()


def picked(logits: Logits, y: Labels) -> PerRow:
    """The output of each row's class."""
    return logits.gather(1, y.unsqueeze(1)).squeeze(1)
