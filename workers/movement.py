"""Parameters that move together: those of the model by the recipe's update, those of a companion by its own."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from algorithms.updates import Parameters, State, Update
from workers.descent import split_flat


@final
class Movement:
    """The parameters of one module, where they are, the update that moves them and what it remembers."""

    def __init__(self, whose: str, module: nn.Module, update: Update | None) -> None:
        """`whose` they are, for a person; None for an update of a module without parameters."""
        self.whose, self.module, self.update = whose, module, update
        self.parameters: Parameters = {name: p.detach() for name, p in module.named_parameters()}
        self.memory: State = {} if update is None else update.start(self.parameters)
        assert update is not None or not self.parameters, f"{whose} has parameters and nothing that moves them"

    @property
    def size(self) -> int:
        """How many numbers the parameters are."""
        return sum(value.numel() for value in self.parameters.values())

    def ahead(self, flat: Tensor, progress: float) -> tuple[Parameters, State]:
        """Parameters and memory after a step against the gradient `flat`; nothing moves yet.

        Raises FloatingPointError if a parameter would not be finite.
        """
        if self.update is None:
            return self.parameters, self.memory
        gradients = split_flat(flat, self.parameters)
        moved, memory = self.update.at(progress).step(self.parameters, gradients, self.memory)
        if not all(bool(torch.isfinite(p).all()) for p in moved.values()):
            raise FloatingPointError(f"the update makes a parameter{self.whose} infinite or NaN; lower learning_rate")
        return moved, memory

    def move(self, moved: Parameters, memory: State) -> None:
        """Writes parameters, in place, and memory."""
        if self.parameters:
            torch._foreach_copy_(list(self.parameters.values()), list(moved.values()))
        self.memory = memory

    def state(self, prefix: str) -> dict[str, Tensor]:
        """The module and the memory, by names that begin with `prefix`."""
        module = {f"{prefix}model/{name}": t.contiguous() for name, t in self.module.state_dict().items()}
        memory = {f"{prefix}update/{name}": t.contiguous() for name, t in self.memory.items()}
        return {**module, **memory}

    def restore(self, prefix: str, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        self.module.load_state_dict(below(f"{prefix}model/", state))
        self.memory = below(f"{prefix}update/", state)


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
