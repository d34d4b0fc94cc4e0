"""States and co-states of a network: one forward and one backward pass, watched at each layer that has parameters.

With the loss J, the co-state p_T = -dJ/dx_T goes back by p_t = (df_t/dx)^T p_{t+1}. So p_t = -dJ/dx_t, and a backward
pass computes it. That holds for any graph of layers, residual ones too, and for batch norm with its batch's statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from algorithms.tensors import finite


class Visit(NamedTuple):
    """A pass through a layer."""

    state: Tensor  # x_t, what goes into the layer
    costate: Tensor  # p_{t+1}, minus the loss's gradient at what comes out


class Trajectory(NamedTuple):
    """A network's states and co-states."""

    loss: float
    visits: dict[str, list[Visit]]  # by a layer's name, in the order of its passes


@final
class _Recorder:
    """Notes a layer's inputs and, while gradients go back, those at its outputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: list[Tensor] = []
        self.costates: list[Tensor] = []

    def forward(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if len(inputs) != 1 or not isinstance(output, Tensor):
            raise ValueError(f"{self.name!r}: a layer has one input and one output, a tensor each")
        if output.requires_grad:
            self.states.append(inputs[0].detach())
            self.costates.append(torch.zeros_like(output))
            output.register_hook(partial(self.backward, len(self.costates) - 1))

    def backward(self, k: int, gradient: Tensor) -> None:
        self.costates[k] = -gradient.detach()

    def visits(self) -> list[Visit]:
        if not all(finite(costate) for costate in self.costates):
            raise FloatingPointError(f"{self.name}: a co-state is NaN or infinite")
        return [Visit(x, p) for x, p in zip(self.states, self.costates, strict=True)]


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that have parameters of their own, by name."""
    return {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}


def trajectory(model: nn.Module, loss: Callable[[], Tensor]) -> Trajectory:
    """States and co-states of the passes that `loss()` makes through `model`, in the mode that the model is in.

    The model's gradients stay as they are. Layers before the first parameter that needs a gradient have no co-state.
    Raises FloatingPointError if the loss or a co-state is not finite.
    """
    recorders = [(_Recorder(name), layer) for name, layer in layers(model).items()]
    hooks = [layer.register_forward_hook(recorder.forward) for recorder, layer in recorders]
    try:
        value = loss()
    finally:
        for hook in hooks:
            hook.remove()
    if not torch.isfinite(value):
        raise FloatingPointError(f"the loss is {value.item()}")
    needed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.autograd.grad(value, needed, allow_unused=True)
    return Trajectory(float(value.detach()), {recorder.name: recorder.visits() for recorder, _ in recorders})
