"""What is learnt from? One file a defense; each is a frozen dataclass that implements `Defense`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from algorithms.search import Record
from algorithms.tensors import Images, Labels


class Defense(ABC):
    """What attackers make of a shard of examples, and the loss that the trainer descends on it."""

    def at(self, progress: float) -> Self:
        """This defense at a point of the training, 0 at its start and 1 at its end. A schedule returns a new value."""
        return self

    @abstractmethod
    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The examples to learn from, one a row, with what they cost. Run by attackers; changes nothing."""

    @abstractmethod
    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """The mean loss over the rows, a scalar to descend. Run where the gradient is taken, in training mode."""
