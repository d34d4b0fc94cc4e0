"""Matrices with other singular values, by the eigenvectors of the smaller Gram matrix instead of a decomposition.

For a matrix A with left singular vectors u and singular values s, scaling each s by f(s) gives
A - sum (1 - f(s)) u u^T A, and only the terms with f(s) < 1 are needed. Everything is in double precision, where
squaring a condition number of 1e3 does no harm, and rounded at the end. Batches and complex matrices are welcome.
Where most values of a nearly square matrix are cut, so that nothing is saved, it is decomposed as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 128  # rows and columns from which on double precision is what costs
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
    lies as much lower, or twice as much.
    """
    clipped = _decomposed(matrices, bound) if _outside(matrices, bound) else None
    if clipped is not None:
        return clipped
    exact = _double(matrices)
    gram = _gram(exact)
    if _below(gram, bound):
        return matrices
    squares, vectors = torch.linalg.eigh(gram)
    sizes, cut = squares.clamp(min=0).sqrt(), inside(matrices, bound)
    if float(sizes.max()) <= bound:
        return matrices
    clipped = _moved(exact, vectors, 1 - cut / sizes.clamp(min=cut))
    if float(sizes.max()) > FAR * bound:
        clipped = scaled(clipped, lambda again: cut / again.clamp(min=cut))
    return clipped.to(matrices.dtype)


def inside(matrices: Tensor, bound: float) -> float:
    """A number so little below `bound` that a matrix of that norm, rounded to the type of `matrices`, keeps `bound`."""
    rank = min(matrices.shape[-2:])
    return bound * (1 - torch.finfo(matrices.dtype).eps * math.sqrt(rank))


def scaled(matrices: Tensor, factors: Callable[[Tensor], Tensor]) -> Tensor:
    """The matrices with singular values s made `factors(s)` times as large."""
    squares, vectors = torch.linalg.eigh(_gram(matrices))
    return _moved(matrices, vectors, 1 - factors(squares.clamp(min=0).sqrt()))


def _moved(matrices: Tensor, vectors: Tensor, shares: Tensor) -> Tensor:
    """The matrices without `shares` of their parts along singular vectors, whichever parts lose something."""
    moving = shares.reshape(-1, shares.shape[-1]).ne(0).any(0)
    vectors, shares = vectors[..., moving], shares[..., None, moving]
    if matrices.shape[-2] <= matrices.shape[-1]:
        return matrices - _product(vectors * shares, vectors.mH, matrices)
    return matrices - _product(matrices, vectors * shares, vectors.mH)


def _decomposed(matrices: Tensor, bound: float) -> Tensor | None:
    """The clipped matrices by a decomposition in their own precision; None where norms are too large for its digits.

    Its vectors are orthogonal up to a few sqrt(r) eps or less, where `inside` twice leaves 2.
    """
    left, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    if float(sizes.max()) > FAR * bound:
        return None
    clipped: Tensor = (left * sizes.clamp(max=2 * inside(matrices, bound) - bound)[..., None, :]) @ right
    return clipped


def _outside(matrices: Tensor, bound: float) -> bool:
    """Whether decomposing in single precision is quicker: large square ones, most of whose values exceed the bound."""
    small, large = sorted(matrices.shape[-2:])
    if matrices.dtype != torch.float32 or small < LARGE or large >= 1.5 * small:
        return False
    return float(matrices.square().sum((-2, -1)).min()) > small * bound**2


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
