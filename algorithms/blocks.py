"""What several networks are made of: convolution stages, residual blocks, the last layers, initial weights."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor, nn
from torch.nn import functional

from algorithms.models import Shape

Initialisation = Literal["torch", "glorot", "he"]  # how initial weights are drawn


def needs(model: str, shape: Shape, pixels: int) -> None:
    """Raises ValueError if the images of `shape` have fewer than `pixels` rows or columns."""
    if min(shape[1:]) < pixels:
        raise ValueError(
            f"{model} needs images of {pixels}x{pixels} pixels or more, not {shape[1]}x{shape[2]}; "
            "choose another model, or a dataset of larger images"
        )


def initialise(network: nn.Module, rule: Initialisation) -> None:
    """Draws the initial weights of convolutions and dense layers anew, with biases of 0; "torch" leaves torch's own.

    "glorot" is uniform (Glorot and Bengio 2010), "he" normal with the fan-in (He et al. 2015).
    """
    if rule == "torch":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if rule == "glorot":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def dropout(share: float) -> list[nn.Module]:
    """Dropout of a share of the units: no layer at all for 0."""
    return [nn.Dropout(share)] if share else []


def normalised(channels: int, width: int) -> list[nn.Module]:
    """A 3x3 convolution and batch norm."""
    return [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]


def pooled() -> list[nn.Module]:
    """ReLU and max-pooling by two, the latter first: the same values and gradients for a fourth of the ReLU's work."""
    return [nn.MaxPool2d(2), nn.ReLU()]


def thin(channels: int, width: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    """A convolution without a bias, for batch norm to follow; it keeps the image's size, divided by the stride."""
    return nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)


def average(width: int, classes: int) -> list[nn.Module]:
    """The last layers of a residual network: the average over the image, then a dense layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def residual_stages(channels: int, width: int, blocks: int) -> list[nn.Module]:
    """A convolution and four stages of `blocks` basic blocks; each but the first halves size, doubles width."""
    layers: list[nn.Module] = [thin(channels, width), nn.BatchNorm2d(width), nn.ReLU()]
    for stage in range(4):
        wide = width << stage
        for place in range(blocks):
            halves = stage > 0 and place == 0
            layers.append(BasicBlock(wide // 2 if halves else wide, wide, stride=2 if halves else 1))
    return layers


@final
class Multiply(nn.Module):
    """Multiplies by a fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """The input, so many times as large."""
        return self.factor * x


@final
class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, https://arxiv.org/abs/1512.03385, option B)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            thin(channels, width, stride), nn.BatchNorm2d(width), nn.ReLU(), thin(width, width), nn.BatchNorm2d(width)
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(thin(channels, width, stride, kernel=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and shortcut, then ReLU."""
        total: Tensor = self.branch(x) + self.shortcut(x)
        return functional.relu(total)


@final
class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two convolutions (He et al. 2016, https://arxiv.org/abs/1603.05027).

    A shortcut that changes the width starts behind the first activation, as in Zagoruyko and Komodakis 2016.
    """

    def __init__(self, channels: int, width: int, stride: int, dropped: float) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.branch = nn.Sequential(
            thin(channels, width, stride), nn.BatchNorm2d(width), nn.ReLU(), *dropout(dropped), thin(width, width)
        )
        self.shortcut = thin(channels, width, stride, kernel=1) if channels != width else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and shortcut, without an activation after it."""
        active: Tensor = self.activation(x)
        kept: Tensor = x if self.shortcut is None else self.shortcut(active)
        changed: Tensor = self.branch(active)
        return kept + changed
