"""Which network? One file an architecture; each is a frozen dataclass that implements `Model`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

Shape = tuple[int, int, int]  # channels, height, width of one image


class Model(ABC):
    """An architecture. Its networks take float images in [0, 1] and return logits."""

    @abstractmethod
    def build(self, shape: Shape, classes: int) -> nn.Module:
        """A fresh network for images of `shape`; initial weights come from torch's global generator.

        Raises ValueError if the architecture cannot take such images. `runtime.build` calls this under a seed of its
        own and leaves the global generator as it was.
        """
