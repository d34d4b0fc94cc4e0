"""Where do images come from? One file a dataset; each is a frozen dataclass that implements `Dataset`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "test"]


class Examples(NamedTuple):
    """A split as it comes from its source, before it is cached."""

    images: NDArray[np.uint8]  # (count, channels, height, width)
    labels: NDArray[np.int64]  # (count,), 0 .. classes - 1
    classes: tuple[str, ...]  # a name each


class Dataset(ABC):
    """A source of labelled images."""

    @abstractmethod
    def fingerprint(self, part: Part) -> str:
        """Changes whenever the source's content does; names the cache file. Must not decode images.

        Raises ValueError or FileNotFoundError, with the remedy, if the source is missing or damaged.
        """

    @abstractmethod
    def read(self, part: Part) -> Examples:
        """All examples of a part. Raises ValueError naming the file and what is wrong in it."""
