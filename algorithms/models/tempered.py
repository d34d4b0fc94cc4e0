"""Any network with its logits multiplied: the inverse temperature of Hinton et al. 2015 (arXiv 1503.02531), section 2.

Where every layer's norm is bounded, logits are small, and the softmax is nearly flat. How steep it is decides what the
training trades: accuracy for a large factor, margins for a small one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from algorithms import checks, plugins
from algorithms.blocks import Multiply
from algorithms.models import Model, Shape


def mlp() -> Model:
    """The default network."""
    kind: Any = plugins.find(Model, "mlp")
    default: Model = kind()
    return default


@final
@dataclass(frozen=True, kw_only=True)
class Tempered(Model):
    """A network and a factor behind it. Classes, and certified radii, are those of the network alone.

    For layers without biases a factor behind the last one is the same as a norm of the last one so many times as large;
    the steps of a training differ.
    """

    model: Model = field(default_factory=mlp)
    factor: float = 1.0  # on the logits, in training and in use

    def __post_init__(self) -> None:
        """Raises ValueError for a factor that makes no sense."""
        checks.at_least("factor", self.factor, 1e-6, "a number above 0 that logits are multiplied by")

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Takes what the network takes. Names of parameters are the network's own, if it is a chain of layers."""
        network = self.model.build(shape, classes)
        layers = list(network.children()) if type(network) is nn.Sequential else [network]
        return nn.Sequential(*layers, Multiply(self.factor))
