"""Weights that map a space to itself: square matrices, and convolutions between as many channels."""

from __future__ import annotations

import torch
from torch import Tensor


def adjoint(theta: Tensor) -> Tensor:
    """The transposed operator: of a matrix, or of a kernel of odd size with stride 1 and its image's size kept.

    Raises ValueError for weights that are no such operator.
    """
    if theta.dim() not in (2, 4) or theta.shape[0] != theta.shape[1] or any(k % 2 == 0 for k in theta.shape[2:]):
        raise ValueError(f"a square matrix, or a kernel of odd size between equal channels, not {tuple(theta.shape)}")
    flipped = theta.transpose(0, 1)
    return flipped.flip(2, 3) if theta.dim() == 4 else flipped


def identity(theta: Tensor) -> Tensor:
    """The operator of the same kind that changes nothing."""
    eye = torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
    if theta.dim() == 2:
        return eye
    kernel = torch.zeros_like(theta)
    kernel[:, :, theta.shape[2] // 2, theta.shape[3] // 2] = eye
    return kernel
