"""What is learnt from? One file a defense; each is a frozen dataclass that implements `Defense`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from algorithms.models import Shape
from algorithms.search import Record
from algorithms.team import Companions
from algorithms.tensors import Images, Labels


class Defense(ABC):
    """What attackers make of a shard of examples, and the loss that the trainer descends on it.

    A defense with companions (`algorithms.team`) gets a `Team` for `model`, which predicts like the model in it.
    """

    def at(self, progress: float) -> Self:
        """This defense at a point of the training, 0 at its start and 1 at its end. A schedule returns a new value."""
        return self

    def companions(self, shape: Shape, classes: int, batch: int) -> Companions:
        """What is trained or remembered beside a model for images of `shape`, in steps of `batch` examples; fresh.

        Initial weights come from torch's global generator, as those of models do.
        """
        return {}

    @abstractmethod
    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The examples to learn from, one a row, with what they cost. Run by attackers; changes nothing."""

    @abstractmethod
    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """The mean loss over the rows, a scalar to descend. Run where the gradient is taken, in training mode.

        With companions it is the sum of losses that are apart: that of the model has no gradient for a companion's
        parameters, and that of a companion none for the model's (`team.apart`, `Tensor.detach`).
        """

    def settle(self, model: nn.Module) -> dict[str, float]:
        """Ends a step, after the parameters have moved: companions' buffers hold the sums that its shards made of them.

        Turns the sums into what is remembered, and returns figures of the step that are worth recording, by name.
        """
        return {}
