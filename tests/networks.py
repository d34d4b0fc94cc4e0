"""Models that tests attack: affine ones, whose best perturbation is known, and a small convolutional one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algorithms.defenses import Defense
from algorithms.team import accompanied
from algorithms.tensors import Images, Labels


class Affine(nn.Module):
    """Logits W x + b. `weight` is (classes, pixels)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_zeros(len(weight)) if bias is None else bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def team(defense: Defense, model: nn.Sequential, x: Images) -> nn.Module:
    """A model whose last layer is dense, with what the defense needs beside it: freshly made, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        channels, height, width = x.shape[1:]
        return accompanied(model, defense.companions((channels, height, width), model[-1].out_features, len(x)))


class Counting(nn.Module):
    """Counts how many rows go forward through a model, and how many backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self._note(len(gradient)))
        return logits

    def _note(self, rows: int) -> None:
        self.backwards += rows


def small(channels: int = 1, classes: int = 4, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A convolution, batch norm, a smooth activation and a dense layer, for 6x6 images; the same weights each time.

    Smooth, so that rounding cannot tip a gradient's sign at zero; its logits are large enough to leave clean examples a
    margin that an attack has to overcome.
    """
    with torch.random.fork_rng():
        torch.manual_seed(channels + 10 * classes)
        model = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(4 * 36, classes),
        )
        nn.init.normal_(model[4].weight, std=0.3)
        model[1].running_mean.uniform_(-0.2, 0.2)
        model[1].running_var.uniform_(0.1, 0.5)
    return model.to(dtype).eval()


def images(count: int = 6, channels: int = 1, dtype: torch.dtype = torch.float32, seed: int = 0) -> Images:
    """Random 6x6 images; some pixels are exactly 0 and some exactly 1."""
    rng = torch.Generator().manual_seed(seed)
    return (1.4 * torch.rand(count, channels, 6, 6, generator=rng, dtype=torch.float64) - 0.2).clamp(0, 1).to(dtype)


@torch.no_grad()
def classes_of(model: nn.Module, x: Images) -> Labels:
    """What `model` predicts, in evaluation mode."""
    logits: Tensor = model(x)
    return logits.argmax(1)


def margin(logits: Tensor, y: Labels) -> Tensor:
    """Largest other logit minus that of `y`, row by row."""
    rows = zip(logits.tolist(), y.tolist(), strict=True)
    return torch.tensor([max(row[:own] + row[own + 1 :]) - row[own] for row, own in rows], dtype=torch.float64)
