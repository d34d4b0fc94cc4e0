"""The best point of every row so far: what it is depends on the attack and on the policy asked for.

Two fields that only some attacks have count here. `confidence`: the margin of logits that an adversarial point must
exceed, 0 without it. `pixels`: True where the norm counts a pixel once, whatever its channels do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, final

import torch

from algorithms import balls, losses
from algorithms.tensors import Counts, Images, Labels, Logits, Mask, PerRow, per_row

if TYPE_CHECKING:
    from algorithms.attacks import Attack

Policy = Literal["first success", "highest loss", "last"]
"""Which point a row returns. `first success` (evaluation): the first adversarial one, or a minimal-norm attack's
smallest; a row that withstands is its highest loss, or a minimal-norm attack's clean row. `highest loss` (training):
that one, whether it fools or not. `last` (training as the papers print it): the last iterate; saves a forward pass."""


class Record(NamedTuple):
    """What a search found, a row an example."""

    x_adv: Images
    success: Mask  # a fresh prediction at `x_adv` is adversarial; under the policy `last`, of the iterate before it
    norm: PerRow  # of `x_adv - x`, in the attack's norm
    forwards: Counts  # forward passes spent
    backwards: Counts  # backward passes spent


class Best(NamedTuple):
    """The best point of every row so far, for rules that return to it or bound themselves by it."""

    x_adv: Images  # where nothing has fooled yet: the point of highest loss
    success: Mask
    norm: PerRow  # of the smallest adversarial point, infinite where there is none; kept for minimal-norm attacks only


@final
class Ledger:
    """The best point of every row so far. Rows are written by index; it is read at the end."""

    def __init__(self, attack: Attack, x: Images, y: Labels, policy: Policy) -> None:
        self.attack, self.x, self.y, self.policy = attack, x, y, policy
        self.confidence: float = getattr(attack, "confidence", 0.0)
        self.pixels: bool = getattr(attack, "pixels", False)
        self.best = x.clone()
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.value = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.norm = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.labels_checked = False

    def judge(self, rows: Labels, x_adv: Images, logits: Logits, value: PerRow) -> Mask:
        """Notes the points `x_adv` of `rows`; returns which are adversarial, by more than the attack's `confidence`."""
        gap = losses.loss("margin", logits, self.y.index_select(0, rows), targeted=self.attack.targeted)
        success = gap > self.confidence
        value = value.detach().to(self.value.dtype)
        climbs = value > self.value[rows]
        if self.attack.minimal:
            norm = self._size(x_adv - self.x.index_select(0, rows))
            better = torch.where(success, norm < self.norm[rows], climbs & ~self.success[rows])
            self.norm[rows] = torch.where(success & better, norm, self.norm[rows])
        elif self.policy == "first success":
            better = ~self.success[rows] & (success | climbs)
        else:
            better = climbs
        if self.policy == "last":
            better = torch.ones_like(better)
        self._write(rows, x_adv, success, value, better)
        return success

    def _size(self, delta: Images) -> PerRow:
        return balls.size(delta.abs().amax(1, keepdim=True) if self.pixels else delta, self.attack.norm)

    def _write(self, rows: Labels, x_adv: Images, success: Mask, value: PerRow, better: Mask) -> None:
        self.best[rows] = torch.where(per_row(better, x_adv), x_adv, self.best.index_select(0, rows))
        self.success[rows] = torch.where(better, success, self.success[rows])
        self.value[rows] = torch.where(better, value, self.value[rows])

    def record(self) -> Record:
        """The outcome. A row that a minimal-norm attack could not fool is the clean row under `first success`."""
        x_adv = self.best
        if self.attack.minimal and self.policy == "first success":
            x_adv = torch.where(per_row(self.success, self.x), x_adv, self.x)
        norm = self._size(x_adv - self.x)
        return Record(x_adv, self.success, norm, self.forwards, self.backwards)
