"""What a network does to pixels first. It is part of the network: what attacks see stays in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

import torch
from torch import nn

from algorithms import checks
from algorithms.models import Shape
from algorithms.tensors import Images

FAINT = 10 / 255**2  # added to an image's variance: Coates et al. 2011 add 10 to that of pixels in 0 .. 255


@final
@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """By default none."""

    contrast: bool = False  # global contrast normalisation: each image gets mean 0 and variance 1
    whitening: float = 0.0  # ZCA: what is added to variances of the training images' components; 0.1 is usual, 0: none
    mean: tuple[float, ...] = ()  # subtracted, one number a channel or one for all, in pixel units
    std: tuple[float, ...] = ()  # divided by, as many numbers

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that are not in pixel units or do not match."""
        checks.at_least("whitening", self.whitening, 0, "what is added to variances, 0 for no whitening")
        for value in self.mean:
            checks.between("mean", value, 0, 1, "a mean in pixel units (pixels are in [0, 1])")
        for value in self.std:
            checks.between("std", value, 1e-3, 1, "a standard deviation in pixel units (pixels are in [0, 1])")
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std: as many numbers in one as in the other, not {len(self.mean)} and {len(self.std)}"
            )

    def layers(self, shape: Shape) -> list[nn.Module]:
        """The layers for images of `shape`, which may be none. Raises ValueError for numbers of other channels."""
        if len(self.mean) not in {0, 1, shape[0]}:
            raise ValueError(
                f"mean and std: one number, or one for each of the {shape[0]} channels, not {len(self.mean)}"
            )
        layers: list[nn.Module] = [Contrast()] if self.contrast else []
        if self.mean:
            layers.append(Standardise(self.mean, self.std))
        return [Whiten(shape, self.whitening, layers)] if self.whitening else layers


@final
class Contrast(nn.Module):
    """Global contrast normalisation (Coates et al. 2011, https://proceedings.mlr.press/v15/coates11a.html)."""

    def forward(self, x: Images) -> Images:
        """Each image with mean 0 and variance 1, but fainter if it is nearly of one colour."""
        centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
        return centred / (centred.square().mean(dim=(1, 2, 3), keepdim=True) + FAINT).sqrt()


@final
class Whiten(nn.Module):
    """ZCA whitening: pixels become uncorrelated, each changed as little as may be (Krizhevsky 2009, appendix A).

    (https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf.) With the covariance C of the training images it
    multiplies by (C + `added`)^(-1/2). What `fit` has found is part of the network's state; before, nothing is changed.
    The matrix has (pixels times channels)^2 numbers, 38 MB for CIFAR-10, which snapshots and checkpoints carry.
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    def __init__(self, shape: Shape, added: float, before: list[nn.Module]) -> None:
        """`before`: layers that come first."""
        super().__init__()
        self.added, self.before = added, nn.Sequential(*before)
        self.register_buffer("mean", torch.zeros(prod(shape)))
        self.register_buffer("matrix", torch.eye(prod(shape)))

    @torch.no_grad()
    def fit(self, images: Images) -> None:
        """Finds mean and matrix from training images, a few for each pixel; a minute for CIFAR-10's 3072 values."""
        values = self.before(images).flatten(1).double()
        mean = values.mean(0)
        values -= mean
        variances, axes = torch.linalg.eigh(values.T @ values / len(values))
        self.mean.copy_(mean)
        self.matrix.copy_((axes / (variances.clamp_min(0) + self.added).sqrt()) @ axes.T)

    def forward(self, x: Images) -> Images:
        """The whitened images."""
        values: torch.Tensor = self.before(x)
        return ((values.flatten(1) - self.mean) @ self.matrix).view_as(x)


@final
class Standardise(nn.Module):
    """Subtracts a mean and divides by a standard deviation, channel by channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Settings, not state: they move with the model, and stay out of snapshots and checkpoints.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Images) -> Images:
        """The standardised images."""
        return (x - self.mean) / self.std
