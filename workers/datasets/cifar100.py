"""Photographs in a hundred classes (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from workers.datasets import Dataset, Examples, Part, _torchvision

_FILES: dict[Part, list[str]] = {"train": ["cifar-100-python/train"], "test": ["cifar-100-python/test"]}


@final
@dataclass(frozen=True, kw_only=True)
class Cifar100(Dataset):
    """50,000 training and 10,000 test images of 32x32 coloured pixels in 100 classes. Torchvision downloads them."""

    folder: str = "data"  # of torchvision's downloads

    def fingerprint(self, part: Part) -> str:
        """A hash of the part's files."""
        return _torchvision.fingerprint("CIFAR100", self.folder, _FILES[part])

    def read(self, part: Part) -> Examples:
        """As torchvision reads them."""
        return _torchvision.read("CIFAR100", self.folder, part, _FILES[part])
