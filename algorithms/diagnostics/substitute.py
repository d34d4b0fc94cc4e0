"""A substitute: a network that learns what a model predicts (Papernot et al. 2017, https://arxiv.org/abs/1602.02697).

Its gradients are honest. Attacks on it that carry over to the model, where attacks on the model itself fail, show that
the model's gradients are masked. The model is asked for classes, nothing else.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from algorithms import balls
from algorithms.balls import Norm
from algorithms.gradients import predict
from algorithms.modes import frozen
from algorithms.streams import Streams
from algorithms.tensors import Images

BATCH = 64
RATE = 2e-3  # of Adam, at its highest


def distil(
    model: nn.Module, pupil: nn.Module, x: Images, ball: tuple[Norm, float], epochs: int, rng: torch.Generator
) -> float:
    """Trains `pupil` on the classes that `model` gives to `x` and to random points of the ball around each image.

    Returns the share of the last epoch's batches on which both agree. `pupil` is in evaluation mode afterwards.
    """
    batches = max(1, len(x) // BATCH)
    optimiser = torch.optim.Adam(pupil.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * batches)
    agree, seen = 0, 0
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=rng).split(BATCH)[:batches]
        for number, rows in enumerate(order):
            images = x[rows.to(x.device)]
            if number % 2:  # every other batch is moved, so that the pupil learns how the model changes
                images = moved(images, ball, rng)
            taught = classes(model, images)
            pupil.train()
            logits = predict(pupil, images)
            optimiser.zero_grad()
            functional.cross_entropy(logits, taught).backward()
            optimiser.step()
            schedule.step()
            if epoch == epochs - 1:
                agree, seen = agree + int((logits.argmax(1) == taught).sum()), seen + len(images)
    pupil.eval()
    return agree / seen


def moved(images: Images, ball: tuple[Norm, float], rng: torch.Generator) -> Images:
    """Random points of the ball, as images."""
    streams = Streams.draw(rng, len(images), images.device)
    return (images + balls.random_point(images, *ball, streams)).clamp(0, 1)


def classes(model: nn.Module, images: Images) -> torch.Tensor:
    """What the model predicts."""
    with frozen(model), torch.no_grad():
        return predict(model, images).argmax(1)
