"""Pictures of clothes (Xiao et al. 2017, https://arxiv.org/abs/1708.07747)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from workers.datasets import Dataset, Examples, Part, _torchvision


@final
@dataclass(frozen=True, kw_only=True)
class FashionMnist(Dataset):
    """60,000 training and 10,000 test images of 28x28 grey pixels in 10 classes. Torchvision downloads them."""

    folder: str = "data"  # of torchvision's downloads

    def fingerprint(self, part: Part) -> str:
        """A hash of the part's files."""
        return _torchvision.fingerprint("FashionMNIST", self.folder, _torchvision.idx_files("FashionMNIST", part))

    def read(self, part: Part) -> Examples:
        """As torchvision reads them."""
        return _torchvision.read("FashionMNIST", self.folder, part, _torchvision.idx_files("FashionMNIST", part))
