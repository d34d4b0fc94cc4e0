"""The best pair against a look at all pairs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from algorithms import saliency


def drawn(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    shape = (60, 9)
    gain, loss = torch.randn(shape, generator=rng).double(), torch.randn(shape, generator=rng).double()
    if kind == "ties":
        gain, loss = (2 * gain).round(), (2 * loss).round()
    if kind == "opposed":  # what helps the aim helps the others: nearly every entry is on the front
        loss = 0.2 * loss - gain
    return gain, loss, torch.rand(shape, generator=rng) < 0.7


@pytest.mark.parametrize("few", [2, 3, 16])
@pytest.mark.parametrize("kind", ["random", "ties", "opposed"])
def test_no_pair_is_better(kind: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "MOST_PAIRS", 200)  # several rows at a time, not all
    monkeypatch.setattr(saliency, "FEW", few)
    gain, loss, allowed = drawn(kind)
    pair = saliency.best_pair(gain, loss, allowed)
    found = 0
    for i in range(len(gain)):
        products = [-math.inf]
        for p, q in itertools.combinations(range(9), 2):
            a, b = float(gain[i, p] + gain[i, q]), float(loss[i, p] + loss[i, q])
            if allowed[i, p] and allowed[i, q] and a > 0 and b > 0:
                products.append(a * b)
        assert pair.product[i].item() == pytest.approx(max(products))
        if max(products) > 0:
            found += 1
            p, q = pair.entries[i].tolist()
            assert p != q
            assert allowed[i, [p, q]].all()
            assert float((gain[i, p] + gain[i, q]) * (loss[i, p] + loss[i, q])) == pytest.approx(max(products))
    assert found > 20


def test_few_entries_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(5)
    gain, loss = torch.randn(8, 3072, generator=rng), torch.randn(8, 3072, generator=rng)
    looked, among_all = [], saliency._among_all
    monkeypatch.setattr(saliency, "_among_all", lambda *sides: looked.append(sides[0].shape) or among_all(*sides))
    saliency.best_pair(gain, loss, torch.ones_like(gain, dtype=torch.bool))
    assert max(count for _, count in looked) <= 64


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    gain, loss, allowed = drawn("ties")
    together = saliency.best_pair(gain, loss, allowed)
    for i in range(0, len(gain), 7):
        alone = saliency.best_pair(gain[i : i + 1], loss[i : i + 1], allowed[i : i + 1])
        assert torch.equal(alone.entries[0], together.entries[i])
