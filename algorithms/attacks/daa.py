"""Distributionally adversarial attack, as a blob of particles (Zheng et al. 2019, https://arxiv.org/abs/1808.05537)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms import balls, checks
from algorithms.attacks import Attack
from algorithms.losses import Loss
from algorithms.search import Problem
from algorithms.tensors import Images, PerRow

Particles = Float[Tensor, "batch particles channels height width"]


class Blob(NamedTuple):
    """Where the rows stand."""

    x_adv: Images  # the first particle
    particles: Particles


@final
@dataclass(frozen=True, kw_only=True)
class DAA(Attack):
    """PGD from several starts at once, whose gradients are mixed by a kernel on the distances between the points.

    A particle follows the sign of

        g_i + weight / n * (sum_j K_ij g_j - sum_j K_ij (x_i - x_j) / h^2),    K_ij = exp(-||x_i - x_j||^2 / (2 h^2)),

    the Lagrangian blob method for the flow of a distribution of points, h^2 being half the median squared distance over
    log n: each feels its neighbours' gradients, and is drawn towards them. Meant in place of PGD with restarts; on an
    adversarially trained MNIST network it is no stronger than that, so take it to compare with the paper.

    In the paper the particles are the images of a batch, one each, so that an image's result depends on which others
    share its batch. That is not allowed here, and hard to defend: what a digit's neighbours in a batch are says nothing
    about it. Here all particles belong to the same image, from `particles` random starts, and no image feels another.

    A step costs `particles` forward and backward passes.
    """

    norm: Literal["linf"] = "linf"
    eps: float = 8 / 255  # radius, in pixel units
    step_size: float = 2 / 255  # in pixel units, like eps
    steps: int = 40
    restarts: int = 1
    particles: int = 5  # points an image
    weight: float = 1.1  # of the interaction (the paper's c); its code has 10 for the margin
    loss: Loss = "cross_entropy"
    targeted: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("step_size", self.step_size, 0, "a length in pixel units")
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("restarts", self.restarts, 1, "a number of searches")
        checks.at_least("particles", self.particles, 2, "a number of points an image")

    def start(self, problem: Problem) -> Blob:
        """Points uniform in the ball."""
        noises = [balls.random_point(problem.x, self.norm, self.eps, problem.streams, n) for n in range(self.particles)]
        particles = (problem.x.unsqueeze(1) + torch.stack(noises, 1)).clamp(0, 1)
        return Blob(particles[:, 0], particles)

    def step(self, problem: Problem, state: Blob, k: int) -> Blob:
        """One step of every particle, back onto the ball and into the box."""
        gradients = torch.stack([problem.gradient(part, self.loss).gradient for part in state.particles.unbind(1)], 1)
        moved = state.particles + self.step_size * self.velocity(state.particles, gradients).sign()
        x = problem.x.unsqueeze(1).expand_as(moved).flatten(0, 1)
        delta = balls.project(moved.flatten(0, 1) - x, self.norm, self.eps)
        particles = (x + delta).clamp(0, 1).view_as(moved)
        if k == self.steps - 1:  # the driver judges the first particle's last point, so the others' turn is now
            for part in particles[:, 1:].unbind(1):
                problem.predict(part)
        return Blob(particles[:, 0], particles)

    def velocity(self, particles: Particles, gradients: Particles) -> Particles:
        """Where each particle is driven, by its own gradient and by the other particles of its image."""
        count = particles.shape[1]
        flat, slopes = particles.flatten(2), gradients.flatten(2)
        squares = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") ** 2
        width = _median(squares) / (2 * math.log(count))
        kernel = torch.exp(-squares / (2 * width))
        drawn = (kernel.sum(2, keepdim=True) * flat - kernel @ flat) / width
        return (slopes + self.weight / count * (kernel @ slopes - drawn)).view_as(particles)


def _median(squares: Float[Tensor, "batch particles particles"]) -> Float[Tensor, "batch 1 1"]:
    """Of the squared distances between two particles, not zero."""
    count = squares.shape[1]
    above = torch.triu_indices(count, count, 1, device=squares.device)
    median: PerRow = squares[:, above[0], above[1]].median(1).values
    return median.clamp_min(1e-12).view(-1, 1, 1)
