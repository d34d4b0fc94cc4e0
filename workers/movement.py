"""Parameters that move together: those of the model by the recipe's update, those of a companion by its own."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from algorithms.control import decoupling
from algorithms.control.decoupling import Decoupled, Moved, Solve, here
from algorithms.control.folding import followers
from algorithms.tensors import finite
from algorithms.updates import Parameters, State, Update
from workers.descent import split_flat


@final
class Movement:
    """The parameters of one module, where they are, the update that moves them and what it remembers."""

    def __init__(self, whose: str, module: nn.Module, update: Update | None, solve: Solve = here) -> None:
        """`whose` they are, for a person; None for an update of a module without parameters.

        `solve` maximises the Hamiltonians of layers, for an update that is decoupled.
        """
        self.whose, self.module, self.update, self.solve = whose, module, update, solve
        self.parameters: Parameters = {name: p.detach() for name, p in module.named_parameters()}
        self.memory: State = {} if update is None else update.start(self.parameters)
        assert update is not None or not self.parameters, f"{whose} has parameters and nothing that moves them"

    @property
    def size(self) -> int:
        """How many numbers the parameters are."""
        return sum(value.numel() for value in self.parameters.values())

    def ahead(self, flat: Tensor, progress: float) -> Moved:
        """Parameters and memory after a step against the gradient `flat`; nothing moves yet.

        A companion whose gradient is zero throughout, because no loss has used it, makes no step: its update remembers
        nothing of it. Raises FloatingPointError if a parameter would not be finite.
        """
        if self.update is None or (self.whose and not flat.any()):
            return Moved(self.parameters, self.memory)
        gradients = split_flat(flat, self.parameters)
        moved = self._step(self.update.at(progress), gradients)
        if not all(finite(value) for value in moved.parameters.values()):
            raise FloatingPointError(f"the update makes a parameter{self.whose} infinite or NaN; lower learning_rate")
        return moved

    def _step(self, update: Update, gradients: Parameters) -> Moved:
        """The update's step; that of a decoupled one by `solve`, under the batch norms as they are now."""
        if not isinstance(update, Decoupled):
            return Moved(*update.step(self.parameters, gradients, self.memory))
        problems = update.problems(self.parameters, gradients, self.memory)
        return decoupling.move(problems, followers(self.module), self.solve)

    def settled(self, parameters: Parameters) -> Parameters:
        """The parameters to keep: of a decoupled update's, those nearest that its constraints allow."""
        if self.update is None or not isinstance(self.update, Decoupled):
            return parameters
        return decoupling.settle(self.update, parameters, self.module)

    def move(self, moved: Moved) -> None:
        """Writes parameters, in place, and memory."""
        if self.parameters:
            torch._foreach_copy_(list(self.parameters.values()), list(moved.parameters.values()))
        self.memory = moved.state

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
