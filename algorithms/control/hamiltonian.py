"""The Hamiltonian of a layer, H(theta) = sum <p, f(x, theta)> - alpha |theta|^2, and its slope for linear layers.

Dense layers, convolutions and the affine part of a batch norm are linear in their parameters: their H is <P, theta>
less the penalty, with P made of states and co-states alone. The update takes P from a backward pass, as it is minus
the loss's gradient; this module makes it from its definition.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.control.states import Visit

Parameters = dict[str, Tensor]  # of one layer, by its own names: weight, bias


def products(layer: nn.Module, visits: list[Visit]) -> Parameters:
    """P = dH/dtheta without the penalty, summed over a layer's passes. Raises ValueError for other kinds of layers."""
    totals = {name: torch.zeros_like(value) for name, value in layer.named_parameters(recurse=False)}
    for visit in visits:
        part = _product(layer, visit)
        totals = {name: total + part[name] for name, total in totals.items()}
    return totals


def hamiltonian(layer: nn.Module, visits: list[Visit], theta: Parameters, alpha: float) -> float:
    """H at the parameters `theta`, states and co-states as they were. The layer stays as it is."""
    twin = copy.deepcopy(layer)  # a batch norm moves its statistics when it is called
    with torch.no_grad():
        for name, parameter in twin.named_parameters(recurse=False):
            parameter.copy_(theta[name])
        gain = sum(float((visit.costate * twin(visit.state)).sum()) for visit in visits)
    return gain - alpha * sum(float(value.square().sum()) for value in theta.values())


def increase(layer: nn.Module, visits: list[Visit], new: Parameters, alpha: float) -> float:
    """By how much H grows from the layer's own parameters to `new` ones."""
    old = {name: value.detach() for name, value in layer.named_parameters(recurse=False)}
    return hamiltonian(layer, visits, new, alpha) - hamiltonian(layer, visits, old, alpha)


def _product(layer: nn.Module, visit: Visit) -> Parameters:
    if isinstance(layer, nn.Linear):
        states, costates = visit.state.flatten(0, -2), visit.costate.flatten(0, -2)
        return {"weight": costates.T @ states, "bias": costates.sum(0)}
    if isinstance(layer, nn.Conv2d):
        return _convolution(layer, visit)
    if isinstance(layer, _BatchNorm):
        axes = [axis for axis in range(visit.state.dim()) if axis != 1]
        return {"weight": (visit.costate * standardised(layer, visit.state)).sum(axes), "bias": visit.costate.sum(axes)}
    raise ValueError(f"a dense layer, a convolution or a batch norm has a product; {type(layer).__name__} has none")


def _convolution(layer: nn.Conv2d, visit: Visit) -> Parameters:
    """Sums over images and positions of co-state times patch, group by group."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = functional.pad(visit.state, layer._reversed_padding_repeated_twice, mode=mode)
    patches = functional.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    grouped = patches.unflatten(1, (layer.groups, -1))
    costates = visit.costate.flatten(2).unflatten(1, (layer.groups, -1))
    weight = torch.einsum("bgol,bgil->goi", costates, grouped)
    return {"weight": weight.reshape(layer.weight.shape), "bias": visit.costate.sum((0, 2, 3))}


def standardised(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What a batch norm makes of `x` before its own scale and shift, by the statistics that its mode asks for."""
    if layer.training or layer.running_mean is None or layer.running_var is None:
        return functional.batch_norm(x, None, None, training=True, eps=layer.eps)
    return functional.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
