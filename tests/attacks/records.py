"""What a record of an attack must say, checked without the attack's own code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.search import Policy, Record, search
from algorithms.tensors import Images, Labels
from tests.attacks.cheap import in_its_ball
from tests.networks import margin

ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def run(attack: Attack, model: nn.Module, x: Images, y: Labels, policy: Policy = "first success") -> Record:
    return search(attack, model, x, y, rng=torch.Generator().manual_seed(5), policy=policy)


def norms_of(delta: Tensor, norm: str) -> Tensor:
    rows = delta.double().flatten(1).numpy()
    return torch.tensor([np.linalg.norm(row, ORDER[norm]) for row in rows])


def assert_true(record: Record, attack: Attack, model: nn.Module, x: Images, y: Labels) -> None:
    """The record says what is so, the images are images, and the attack kept to its budget."""
    x_adv = record.x_adv
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert ((x_adv >= 0) & (x_adv <= 1)).all()  # so written, NaN fails too
    with torch.no_grad():
        gap = margin(model(x_adv.to(next(model.parameters()).dtype)), y)
    confidence = getattr(attack, "confidence", 0.0)
    assert record.success.tolist() == ((-gap if attack.targeted else gap) > confidence).tolist()
    delta = (x_adv - x).abs().amax(1, keepdim=True) if getattr(attack, "pixels", False) else x_adv - x
    torch.testing.assert_close(record.norm.double(), norms_of(delta, attack.norm), rtol=1e-5, atol=1e-6)
    if in_its_ball(attack):
        assert (record.norm <= attack.eps * (1 + 1e-5) + 1e-6).all()  # type: ignore[attr-defined]
    assert (record.forwards > 0).all()
