"""Deep margin maximisation (Matyasko 2021, https://doi.org/10.32657/10356/143316, equation 3.18).

The hinge is printed the wrong way round there, and the norm of the sensitivity without the square that the figures of
Tables 3.1 and 3.2 were made with; sums are means here, as in the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks, losses, margins
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.modes import evaluating
from algorithms.search import Record, unperturbed
from algorithms.tensors import Images, Labels, PerRow


@final
@dataclass(frozen=True, kw_only=True)
class Margin(Defense):
    """Learns from clean images, and to change little with the input: boundaries move away from the examples.

    The sensitivity of an example is the norm of the input gradient of its class's logit minus another's, whichever is
    largest. A linear network learns what a multiclass support vector machine does. The sensitivity is of the network as
    it evaluates: no dropout in it, and batch norm by its running statistics, so that rows are independent.

    The gradient of a gradient: a step costs as much as about 15 forward passes with ten classes (9 backward passes to
    find the class, unless there are two). The work is in the loss, so with `train.exchange = "gradients"` attackers
    share it. Memory: activations of two passes and their gradients, about four times those of plain training, and a few
    images a row; no gradient is kept for each class. An l1 sensitivity weighs more: 0.01 there, 0.1 or more diverges.
    """

    weight: float = 0.1  # C of the paper
    sensitivity: Literal["squared_l2", "l2", "l1"] = "squared_l2"  # l1 looks for distance in linf, l2 in l2
    fit: Literal["hinge", "cross_entropy"] = "hinge"  # on the clean images; deep networks may diverge with the hinge

    def __post_init__(self) -> None:
        """Raises ValueError for a negative weight."""
        checks.at_least("weight", self.weight, 0, "a weight")

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The clean images, at no cost."""
        return unperturbed(x)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Hinge or cross-entropy on the clean images, and `weight` times their sensitivity."""
        sensitivity = self._sensitivity(model, x, y)  # first: a pass in training mode moves batch norm's statistics
        logits = predict(model, x)
        if self.fit == "hinge":
            fit = functional.relu(1 + losses.margin(logits, y))
        else:
            fit = functional.cross_entropy(logits, y, reduction="none")
        return (fit + self.weight * sensitivity).mean()

    def _sensitivity(self, model: nn.Module, x: Images, y: Labels) -> PerRow:
        with evaluating(model):
            size = margins.sensitivity(model, x, y, "l1" if self.sensitivity == "l1" else "l2")
        return size.square() if self.sensitivity == "squared_l2" else size
