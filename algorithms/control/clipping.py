"""Matrices with other singular values, by the eigenvectors of the smaller Gram matrix instead of a decomposition.

For a matrix A with left singular vectors u and singular values s, scaling each s by f(s) gives
A - sum (1 - f(s)) u u^T A, and only the terms with f(s) < 1 are needed. Everything is in double precision, where
squaring a condition number of 1e3 does no harm, and rounded at the end. Batches and complex matrices are welcome.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FAR = 1e3  # how many times a norm may exceed its bound before squares lose so many digits that a second round is due


def matrix(theta: Tensor) -> Tensor:
    """A parameter as a matrix: outputs by everything else. Raises ValueError for a parameter of fewer than two axes."""
    if theta.dim() < 2:
        raise ValueError(f"a weight of two axes or more, not of shape {tuple(theta.shape)}")
    return theta.reshape(len(theta), -1)


def norm(matrices: Tensor) -> Tensor:
    """The largest singular value of each matrix, in double precision."""
    squares: Tensor = torch.linalg.eigvalsh(_gram(_double(matrices.detach())))[..., -1]
    return squares.clamp(min=0).sqrt()


def clip(matrices: Tensor, bound: float) -> Tensor:
    """The nearest matrices whose singular values are at most `bound`; the very same bits if they are already.

    Rounding to single precision moves the norm of a matrix of rank r by at most sqrt(r) eps times the bound; the cut
    lies as much lower.
    """
    cut, exact = inside(matrices, bound), _double(matrices)
    squares = _gram(exact)
    if _below(squares, bound):
        return matrices
    clipped, largest = _scaled(exact, squares, lambda sizes: cut / sizes.clamp(min=cut))
    if largest <= bound:
        return matrices
    if largest > FAR * bound:
        clipped, _ = scaled(clipped, lambda sizes: cut / sizes.clamp(min=cut))
    return clipped.to(matrices.dtype)


def inside(matrices: Tensor, bound: float) -> float:
    """A number so little below `bound` that a matrix of that norm, rounded to the type of `matrices`, keeps `bound`."""
    rank = min(matrices.shape[-2:])
    return bound * (1 - torch.finfo(matrices.dtype).eps * math.sqrt(rank))


def scaled(matrices: Tensor, factors: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
    """The matrices with singular values s made `factors(s)` times as large, and the largest s there was."""
    return _scaled(matrices, _gram(matrices), factors)


def _scaled(matrices: Tensor, gram: Tensor, factors: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
    squares, vectors = torch.linalg.eigh(gram)
    sizes = squares.clamp(min=0).sqrt()
    shares = 1 - factors(sizes)
    moving = shares.reshape(-1, shares.shape[-1]).ne(0).any(0)
    vectors, shares = vectors[..., moving], shares[..., None, moving]
    if matrices.shape[-2] <= matrices.shape[-1]:
        change = _product(vectors * shares, vectors.mH, matrices)
    else:
        change = _product(matrices, vectors * shares, vectors.mH)
    return matrices - change, float(sizes.max())


def _below(gram: Tensor, bound: float) -> bool:
    """True only if no singular value exceeds the bound, by a factorisation that costs a tenth of the eigenvalues.

    Those within rounding of the bound may be taken for larger: it takes eigenvalues to tell.
    """
    if gram.diagonal(dim1=-2, dim2=-1).real.amax() > bound**2:  # a row alone is too long
        return False
    left = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device) * bound**2 - gram
    return not bool(torch.linalg.cholesky_ex(left).info.any())


def _product(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """The product of three matrices, by the order that takes fewer multiplications."""
    rows, inner = first.shape[-2:]
    middle, columns = third.shape[-2:]
    if rows * middle * (inner + columns) < inner * columns * (middle + rows):
        return first @ second @ third
    return first @ (second @ third)


def _gram(matrices: Tensor) -> Tensor:
    """A A^H or A^H A, whichever is smaller."""
    rows, columns = matrices.shape[-2:]
    return matrices @ matrices.mH if rows <= columns else matrices.mH @ matrices


def _double(matrices: Tensor) -> Tensor:
    return matrices.to(torch.complex128 if matrices.is_complex() else torch.float64)
