"""Handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import final

import numpy as np
from numpy.typing import NDArray

from workers.datasets import Dataset, Examples, Part

_FOLD = 5  # of each class, every fifth example is for testing


@final
@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """1,797 grey images of 8x8 pixels in 10 classes, from scikit-learn: 1,442 to train, 355 to test.

    The division is stratified and needs no random numbers: of each class, in the bundled order, the 5th, 10th, 15th
    ... example is for testing. The bundled values 0 .. 16 become pixels 0 .. 255.
    """

    def fingerprint(self, part: Part) -> str:
        """The version of scikit-learn, whose package holds the images, and how they are read."""
        return f"scikit-learn {metadata.version('scikit-learn')}, fold {_FOLD}, {part}"

    def read(self, part: Part) -> Examples:
        """Loads the whole and keeps the part."""
        from sklearn.datasets import load_digits  # noqa: PLC0415  (takes a second, and only the first run needs it)

        bundle = load_digits()
        labels = np.asarray(bundle.target, dtype=np.int64)
        chosen = for_testing(labels) == (part == "test")
        pixels = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
        return Examples(pixels[chosen, np.newaxis], labels[chosen], tuple(str(name) for name in bundle.target_names))


def for_testing(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(count,) true for every fifth example of each class."""
    ranks = np.empty_like(labels)  # how many examples of the same class come before
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        ranks[rows] = np.arange(len(rows))
    return np.equal(ranks % _FOLD, _FOLD - 1)
