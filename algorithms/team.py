"""What a defense trains or remembers beside the model: a critic, the noise of a batch, running means.

A companion is a module. Its parameters move by an update of its own; its buffers are what is remembered. In a run the
trainer holds companions beside the model, snapshots and checkpoints carry them, and what is kept in the end is the
model alone. A defense that has companions is called with a `Team`, which predicts like the model in it.

Buffers add up: what `Defense.loss` adds to a companion's buffer on one shard of a step is added to what it adds on the
others, in the order of the shards. `Defense.settle` then makes of the sums what is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from algorithms.gradients import dtype_of
from algorithms.tensors import Images, Logits
from algorithms.updates import Update

Kind = TypeVar("Kind", bound=nn.Module)


class Companion(NamedTuple):
    """A module beside the model, and how its parameters move; None for one that has none."""

    module: nn.Module
    update: Update | None = None


Companions = dict[str, Companion]


@final
class Team(nn.Module):
    """A model and its companions. Called like the model."""

    def __init__(self, model: nn.Module, companions: Mapping[str, nn.Module]) -> None:
        """Companions come to the model's device and, where they are floating, to its precision."""
        super().__init__()
        self.model = model
        self.companions = nn.ModuleDict(companions)
        device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self.companions.to(device, dtype_of(model))
        self.rows = slice(None)  # of the step's batch: those that the shard being worked on holds

    def forward(self, x: Images) -> Logits:
        """The model's logits."""
        logits: Logits = self.model(x)
        return logits


def accompanied(model: nn.Module, companions: Companions) -> nn.Module:
    """The model with its companions; without any, the model itself."""
    return Team(model, {name: one.module for name, one in companions.items()}) if companions else model


def model_of(network: nn.Module) -> nn.Module:
    """The model alone."""
    return network.model if isinstance(network, Team) else network


def companion(network: nn.Module, name: str, kind: type[Kind]) -> Kind:
    """The companion of that name. Raises ValueError for a model that has none, saying how to give it one."""
    if not isinstance(network, Team) or name not in network.companions:
        raise ValueError(
            f"the defense needs its companion {name!r} beside the model: "
            "network = accompanied(model, defense.companions(shape, classes, batch))"
        )
    found = network.companions[name]
    assert isinstance(found, kind)
    return found


def rows_of(network: nn.Module) -> slice:
    """Which rows of the step's batch the examples at hand are; all of them outside of a run."""
    return network.rows if isinstance(network, Team) else slice(None)


def apart(module: nn.Module, *inputs: Any) -> Tensor:
    """What the module makes of the inputs, with gradients for the inputs alone: its parameters are taken as given."""
    fixed = {name: parameter.detach() for name, parameter in module.named_parameters()}
    made: Tensor = functional_call(module, fixed, inputs)
    return made
