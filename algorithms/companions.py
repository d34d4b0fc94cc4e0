"""What some attacks need beside the model, handed over with it: the model stays an argument, and an attack a value.

An attack says what it wants in a field: `surrogate`, the name of a run, or `guides`, a number of images of each class.
Who runs it for a user (an evaluation) looks there, and brings that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from algorithms.tensors import Images, Labels


class WithSurrogate(nn.Module):
    """A model, and another one that is attacked in its place; for `transfer`."""

    def __init__(self, model: nn.Module, surrogate: nn.Module) -> None:
        super().__init__()
        self.model, self.surrogate = model, surrogate

    def forward(self, x: Tensor) -> Tensor:
        """The model's own logits."""
        logits: Tensor = self.model(x)
        return logits


class WithGuides(nn.Module):
    """A model, and images of known classes whose features others are to take on; for `feature_adversary`."""

    guides: Tensor
    classes: Tensor

    def __init__(self, model: nn.Module, guides: Images, classes: Labels) -> None:
        """Raises ValueError unless there are guides of two classes, so that each image has one of another class."""
        super().__init__()
        if guides.dim() != 4 or classes.shape != (len(guides),) or len(classes.unique()) < 2:
            raise ValueError(
                "guides: images (count, channels, height, width) of two classes or more, and a class each; got "
                f"{tuple(guides.shape)} and {tuple(classes.shape)} with {len(classes.unique())} classes"
            )
        self.model = model
        self.register_buffer("guides", guides, persistent=False)
        self.register_buffer("classes", classes.to(torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The model's own logits."""
        logits: Tensor = self.model(x)
        return logits


def surrogate_of(attack: object) -> str:
    """The run that an attack, or one inside it, wants to be given a surrogate from; empty: it does as it is."""
    return next((part.surrogate for part in _layers(attack) if getattr(part, "surrogate", "")), "")


def guides_of(attack: object) -> int:
    """How many images of each class an attack, or one inside it, wants to be given as guides."""
    return next((part.guides for part in _layers(attack) if getattr(part, "guides", 0)), 0)


def _layers(attack: Any) -> Iterator[Any]:
    """An attack, the one that it runs, and so on."""
    while attack is not None:
        yield attack
        attack = getattr(attack, "attack", None)
