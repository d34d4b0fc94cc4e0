"""The skew-symmetric block of stabilised neural ODEs: an auxiliary variable, one kernel and its transpose, damping.

Huang, Yu, Zhang, Ma and Yao, "Adversarial Robustness of Stabilized Neural ODE Might be from Obfuscated Gradients", MSML
2021, https://proceedings.mlr.press/v145/huang22a.html, equation (3): with state (z, x), kernel W and damping gamma,

    dz/dt = sigma(W x - gamma z),  dx/dt = sigma(-W^T z - gamma x),  so that d(z, x)/dt = sigma(M (z, x)),

where the symmetric part of M is -gamma times the identity. The block's output is z at time 1; x is left behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks
from algorithms.ode.activations import Activation, activate
from algorithms.ode.flow import Flow
from algorithms.ode.solver import Solvers
from algorithms.ode.watch import State

Mode = Literal["theorem", "reference"]
Start = Literal["zeros", "tiled"]


@final
@dataclass(frozen=True, kw_only=True)
class Skew:
    """The rule of the blocks. The stability theorem covers theorem mode with damping above 0, and nothing else."""

    mode: Mode = "theorem"  # reference: that of the published code, with group norm on states and on derivatives
    damping: float | None = None  # gamma; none: 0.1 in theorem mode, 0 in reference mode
    activation: Activation = "leaky_relu"
    start: Start | None = None  # of the auxiliary variable; none: zeros in theorem mode, the tiled image in reference
    gain: float = 1.0  # first weight of the norms on the derivatives; large ones make the flow chaotic (reference mode)

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        if self.damping is not None:
            checks.between("damping", self.damping, 0, 10, "what draws the state towards 0")
        checks.between("gain", self.gain, 1e-3, 1e3, "a factor on derivatives")
        if self.gain != 1 and self.mode != "reference":
            raise ValueError("gain: of the norms of reference mode; theorem mode has none")

    @property
    def gamma(self) -> float:
        """The damping."""
        if self.damping is not None:
            return self.damping
        return 0.1 if self.mode == "theorem" else 0.0

    @property
    def tiled(self) -> bool:
        """Whether the auxiliary variable starts as a copy of the image rather than as zeros."""
        return self.mode == "reference" if self.start is None else self.start == "tiled"

    @property
    def covered(self) -> bool:
        """Whether the stability theorem holds for these blocks."""
        return self.mode == "theorem" and self.gamma > 0


@final
class Convolution(nn.Module):
    """A kernel with its transpose: 3x3, or 4x4 for a stride of 2, which halves the image's sides."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        size = 3 if stride == 1 else 4
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(width, channels, size, size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """W x."""
        return functional.conv2d(x, self.weight, stride=self.stride, padding=1)

    def transposed(self, z: Tensor, like: Tensor) -> Tensor:
        """W^T z for an image of the size of `like`; rows that a stride leaves over at its end are part of it."""
        left = [(side + 2 - self.weight.shape[2]) % self.stride for side in like.shape[2:]]
        return functional.conv_transpose2d(z, self.weight, stride=self.stride, padding=1, output_padding=left)


@final
class Dense(nn.Module):
    """A matrix with its transpose."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """W x."""
        return x @ self.weight.T

    def transposed(self, z: Tensor, like: Tensor) -> Tensor:
        """W^T z, which is as wide as `like`."""
        del like  # a matrix says it itself
        return z @ self.weight


@final
class SkewField(nn.Module):
    """sigma(M y) for y = (z, x); in reference mode between norms of the parts and norms of the derivatives."""

    def __init__(self, kernel: Convolution | Dense, rule: Skew, widths: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.rule = kernel, rule
        normed = widths if rule.mode == "reference" else ()
        self.before = nn.ModuleList([group_norm(count, 8) for count in normed])
        self.after = nn.ModuleList([group_norm(count, 8, rule.gain) for count in normed])

    def linear(self, state: State) -> State:
        """M y."""
        z, x = state
        gamma = self.rule.gamma
        return self.kernel(x) - gamma * z, -self.kernel.transposed(z, x) - gamma * x

    def forward(self, t: Tensor, state: State) -> State:
        """The derivative, at any time."""
        inner = self.linear(each(self.before, state))
        return each(self.after, tuple(activate(self.rule.activation, part) for part in inner))


def each(layers: nn.ModuleList, state: State) -> State:
    """A layer on each part, or none at all."""
    return tuple(layer(part) for layer, part in zip(layers, state, strict=True)) if layers else state


def group_norm(channels: int, most: int, gain: float = 1.0) -> nn.GroupNorm:
    """Group norm with `most` groups, or the largest number below that divides the channels, and weights of `gain`."""
    made = nn.GroupNorm(max(count for count in range(1, most + 1) if channels % count == 0), channels)
    nn.init.constant_(made.weight, gain)
    return made


@final
class ActivatedField(nn.Module):
    """The classifier of the published code: W sigma(z) + b - gamma x for x, -W^T sigma(x) + b - gamma z for z."""

    def __init__(self, features: int, classes: int, rule: Skew) -> None:
        super().__init__()
        self.rule = rule
        self.kernel = Dense(features, classes)
        self.bias_x, self.bias_z = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(classes))

    def forward(self, t: Tensor, state: State) -> State:
        """The derivative, at any time."""
        z, x = state
        gamma, active = self.rule.gamma, self.rule.activation
        to_x = self.kernel.transposed(activate(active, z), x) + self.bias_x - gamma * x
        return self.bias_z - self.kernel(activate(active, x)) - gamma * z, to_x


@final
class SkewBlock(nn.Module):
    """Images to images of `width` channels: z at time 1 from (z, x) = (start, image)."""

    def __init__(self, width: int, stride: int, rule: Skew, flow: Flow) -> None:
        super().__init__()
        self.width, self.stride, self.rule, self.flow = width, stride, rule, flow

    def forward(self, x: Tensor) -> Tensor:
        """The auxiliary variable at the end."""
        z: Tensor = self.flow(self.start(x), x)[0]
        return z

    def start(self, x: Tensor) -> Tensor:
        """The auxiliary variable at time 0: zeros, or the image's channels over and over, as few pixels as it has."""
        height, width = x.shape[2] // self.stride, x.shape[3] // self.stride
        if not self.rule.tiled:
            return x.new_zeros(len(x), self.width, height, width)
        return tiled(x[:, :, :: self.stride, :: self.stride][:, :, :height, :width], self.width)


def tiled(x: Tensor, width: int) -> Tensor:
    """The image's channels over and over, until there are `width`."""
    return x.repeat(1, -(-width // x.shape[1]), 1, 1)[:, :width]


@final
class SkewClassifier(nn.Module):
    """Features to logits: z at time 1, one number a class, from (z, x) = (`level`, features)."""

    def __init__(self, classes: int, level: float, flow: Flow) -> None:
        super().__init__()
        self.classes, self.level, self.flow = classes, level, flow

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        z: Tensor = self.flow(x.new_full((len(x), self.classes), self.level), x)[0]
        return z


def block(channels: int, width: int, stride: int, rule: Skew, solvers: Solvers, name: str) -> SkewBlock:
    """A block of `channels` to `width` channels; a stride of 2 halves the image's sides."""
    field = SkewField(Convolution(channels, width, stride), rule, (width, channels))
    return SkewBlock(width, stride, rule, Flow(field, solvers, name))


def classifier(features: int, classes: int, rule: Skew, solvers: Solvers, name: str) -> SkewClassifier:
    """The last block of a network."""
    if rule.mode == "reference":
        return SkewClassifier(classes, 0.1, Flow(ActivatedField(features, classes, rule), solvers, name))
    return SkewClassifier(
        classes, 0.0, Flow(SkewField(Dense(features, classes), rule, (classes, features)), solvers, name)
    )
