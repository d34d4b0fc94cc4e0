"""The benchmark of attacks in Wasserstein balls, on two digits and a linear model: its columns are what they say."""

from __future__ import annotations

import pytest
import torch

from algorithms.search import unperturbed
from benchmarks import transport
from benchmarks.wasserstein import memory
from benchmarks.wasserstein.__main__ import Found, attacked, contestants, least, line
from tests.networks import Affine
from tests.transport.oracle import digits, distance


def test_published_forms_are_not_feasible_and_ours_are() -> None:
    slopes = 8 * torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    model, (x, y) = Affine(slopes), digits(3)
    x = x.float()
    y = model(x).argmax(1)
    for name, attack in contestants(0.5, 4).items():
        found = attacked(attack, model, x, y)
        cells = line(name, 0.5, found, (model, x, y)).split("|")
        success, feasible, mean, worst = float(cells[3]), float(cells[4]), float(cells[6]), float(cells[7])
        assert success == pytest.approx(found.success.float().mean().item(), abs=0.01)
        if "published" in name:
            assert worst > 1e-4
            assert feasible == 0
        else:
            assert feasible == success
            assert mean <= worst < 1e-6
            assert float(cells[9]) <= 1.0001
    assert len(contestants(0.3, 4)) == 3


def test_pots_distances_are_the_linear_programs() -> None:
    x, y = digits(2)
    x_adv = 0.8 * x + 0.2 * torch.roll(x, 1, 3)
    expected = [distance(a, b, 2) for a, b in zip(x, x_adv, strict=True)]
    assert least(x, x_adv) == pytest.approx(expected, abs=1e-9)
    nothing, images = Found(x, unperturbed(x).success, 0.0), (Affine(torch.ones(10, 64).double()), x, y)
    assert float(line("none", 0.5, nothing, images).split("|")[8]) == 0


def test_time_and_memory_are_told_case_by_case(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((8, 3), (16, 0))
    monkeypatch.setattr(memory, "CASES", cases)
    monkeypatch.setattr(transport, "CASES", cases)
    monkeypatch.setattr(transport, "peaks", lambda: [memory.peak(case) for case in cases])
    rows = transport.run()
    assert [row.what for row in rows] == ["WasserAttack 8x8, 3x3", "WasserAttack 16x16, all"]
    assert "a plan is 113.8 times as large" in rows[1].note  # 256^2 numbers instead of 64 * 9
    assert rows[1].ratio > 1
    monkeypatch.setattr(memory, "peaks", lambda: [4608.0, 262144.0])  # two plans of 4 * 64 * 9 bytes, one of 4 * 256^2
    assert memory.memory().splitlines()[2:] == ["| 8x8 | 3 | 5 | 2.0 |", "| 16x16 | all | 262 | 1.0 |"]
