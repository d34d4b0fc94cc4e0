"""How stable a model is: spectra of its weights, a bound on its slope, and how a perturbation grows through its layers.

What stands in figure 1 of the paper of `algorithms.control`, and what its theory is about, measured while training.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algorithms.batch_norm import scaled
from algorithms.control import folding
from algorithms.control.certificate import certify
from algorithms.control.spectra import Spectrum, growth, spectra
from algorithms.tensors import Images
from workers.runtime import rng_of

EXAMPLES = 64  # images that are perturbed
SIZE = 0.1  # l2 norm of a perturbation, in pixel units


class Stability(NamedTuple):
    """What was measured of one state of a model."""

    figures: dict[str, float]  # by name, as MLflow shows them
    singular_values: dict[str, NDArray[np.float64]]  # of each weight as a matrix, by the layer's name, largest first
    eigenvalues: dict[str, NDArray[np.complex128]]  # of the square ones


def measured(model: nn.Module, images: Images, seed: int) -> Stability:
    """The stability of a model around some images. A weight is taken with the scale of the batch norm after it.

    Growth is that of random perturbations of the images, a mean over them: evidence, and no bound.
    """
    found = {layer_of(name): value for name, value in spectra(folded(model)).items()}
    figures = {f"norm/{name}": spectrum.norm for name, spectrum in found.items()}
    figures |= {f"radius/{name}": s.radius for name, s in found.items() if s.radius is not None}
    figures |= {f"growth/{name}": float(value.mean()) for name, value in grown(model, images, seed).items()}
    with contextlib.suppress(ValueError):  # of a network that is no chain no bound is known
        figures["lipschitz"] = certify(model, (images.shape[1], images.shape[2], images.shape[3])).lipschitz
    sizes = {name: spectrum.singular_values.cpu().numpy() for name, spectrum in found.items()}
    return Stability(figures, sizes, {name: eigenvalues_of(s) for name, s in found.items() if s.radius is not None})


def folded(model: nn.Module) -> dict[str, Tensor]:
    """The parameters, those before a batch norm times its scale."""
    scales = folding.scales(model)
    return {
        name: scaled(value.detach(), scales[name]) if name in scales else value.detach()
        for name, value in model.named_parameters()
    }


def grown(model: nn.Module, images: Images, seed: int) -> dict[str, Tensor]:
    """How many times as large a random perturbation is behind each layer."""
    noise = torch.randn(images.shape, generator=rng_of(seed, "evaluate")).to(images)
    sizes = noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return growth(model, images, SIZE * noise / sizes)


def eigenvalues_of(spectrum: Spectrum) -> NDArray[np.complex128]:
    """Those of a square weight."""
    assert spectrum.eigenvalues is not None
    return np.asarray(spectrum.eigenvalues.cpu().numpy())


def layer_of(weight: str) -> str:
    """The name of the layer that a weight belongs to; that of the weight where it is not the layer's main one."""
    return weight.removesuffix(".weight")
