"""Any classifier of torchvision (https://docs.pytorch.org/vision/stable/models.html), by its name there, untrained."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from algorithms import modes, vision
from algorithms.models import Model, Shape
from algorithms.normalisation import Normalisation


@final
@dataclass(frozen=True, kw_only=True)
class Torchvision(Model):
    """Made for images of 224x224 pixels; many take smaller ones. A grey image goes in as three equal colours."""

    architecture: str = "resnet18"  # a name from `torchvision.models.list_models(torchvision.models)`
    normalisation: Normalisation = field(default_factory=Normalisation)  # of the three colours

    def __post_init__(self) -> None:
        """Raises ValueError, with the nearest names, for an architecture that torchvision does not have."""
        models = vision.torchvision().models
        known: list[str] = models.list_models(module=models)  # classifiers only; detection and so on are submodules
        if self.architecture not in known:
            near = difflib.get_close_matches(self.architecture, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"one of {', '.join(known)}"
            raise ValueError(f"architecture: a classifier of torchvision, not {self.architecture!r}; {hint}")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Needs images of one or three channels, and as many pixels as the architecture does."""
        if shape[0] not in {1, 3}:
            raise ValueError(f"torchvision's networks need images of 1 or 3 channels, not {shape[0]}")
        grey: list[nn.Module] = [Colours()] if shape[0] == 1 else []
        layers = self.normalisation.layers((3, shape[1], shape[2]))
        try:
            network = nn.Sequential(*grey, *layers, self.network(shape, classes))
            with modes.evaluating(network), torch.no_grad():
                network(torch.zeros(1, *shape))
        except (RuntimeError, ValueError, AssertionError) as error:
            size, reason = f"{shape[1]}x{shape[2]}", str(error).partition("\n")[0]
            raise ValueError(
                f"torchvision's {self.architecture} cannot take images of {size} pixels ({reason}); "
                "choose another architecture, or a dataset of larger images"
            ) from error
        return network

    def network(self, shape: Shape, classes: int) -> nn.Module:
        """Torchvision's own module, with the arguments that a few architectures need."""
        arguments: dict[str, Any] = {}
        if self.architecture in {"googlenet", "inception_v3"}:
            arguments = {"aux_logits": False, "init_weights": True}  # else training returns more than logits
        elif self.architecture.startswith("vit_"):
            arguments = {"image_size": shape[1]}
        elif self.architecture.startswith("maxvit_"):
            arguments = {"input_size": shape[1:]}
        network: nn.Module = vision.torchvision().models.get_model(
            self.architecture, weights=None, num_classes=classes, **arguments
        )
        return network


@final
class Colours(nn.Module):
    """Repeats the channel of grey images."""

    def forward(self, x: Tensor) -> Tensor:
        """Three equal channels."""
        return x.expand(-1, 3, -1, -1)
