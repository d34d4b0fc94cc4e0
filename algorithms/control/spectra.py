"""What stability looks like: singular values and eigenvalues of layers, and how a perturbation grows through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from algorithms.control import clipping
from algorithms.modes import frozen
from algorithms.tensors import Images, PerRow


class Spectrum(NamedTuple):
    """Of a weight as a matrix, outputs by everything else, in double precision."""

    norm: float  # the largest singular value
    radius: float | None  # the largest absolute eigenvalue; None: the matrix is not square and has no eigenvalues
    singular_values: Tensor  # largest first
    eigenvalues: Tensor | None  # complex


def spectrum(theta: Tensor) -> Spectrum:
    """Singular values of a weight, and eigenvalues where it is square. The paper's figure 1 shows a 10x512 weight."""
    matrix = clipping.matrix(theta.detach()).double()
    sizes = torch.linalg.svdvals(matrix)
    if matrix.shape[0] != matrix.shape[1]:
        return Spectrum(float(sizes[0]), None, sizes, None)
    eigenvalues = torch.linalg.eigvals(matrix)
    return Spectrum(float(sizes[0]), float(eigenvalues.abs().max()), sizes, eigenvalues)


def spectra(parameters: dict[str, Tensor]) -> dict[str, Spectrum]:
    """The spectrum of each weight of two axes or more."""
    return {name: spectrum(theta) for name, theta in parameters.items() if theta.dim() >= 2}


def growth(model: nn.Module, x: Images, perturbation: Images) -> dict[str, PerRow]:
    """How many times its size at the input, in the l2 norm, a perturbation has after each layer. An empirical check.

    By the names of the innermost modules in the order of the pass; one that is passed again has its number behind it.
    Raises ValueError for a perturbation that is zero.
    """
    sizes = perturbation.flatten(1).norm(dim=1)
    if not bool((sizes > 0).all()):
        raise ValueError("perturbation: rows other than zero, as their growth is measured")
    with frozen(model), torch.no_grad():
        before, after = _outputs(model, x), _outputs(model, x + perturbation)
    return {name: (after[name] - before[name]).flatten(1).norm(dim=1) / sizes for name in before}


def _outputs(model: nn.Module, x: Images) -> dict[str, Tensor]:
    """What comes out of each innermost module."""
    seen: dict[str, Tensor] = {}
    inner = {name: module for name, module in model.named_modules() if not list(module.children())}
    hooks = [module.register_forward_hook(_noting(seen, name)) for name, module in inner.items()]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _noting(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        passed = sum(key.partition(" ")[0] == name for key in seen)
        seen[f"{name} {passed + 1}" if passed else name] = output.clone()  # the next layer may write into it

    return note
