"""The search for a worth, step by step."""

from __future__ import annotations

import torch

from algorithms import trade

NOBODY, EVERYBODY = torch.tensor([False]), torch.tensor([True])


def descend(search: trade.Search, fooled: torch.Tensor, objective: float = 1.0) -> trade.Search:
    """One descent of two steps, the second of which tells."""
    for step in range(2):
        search, over = trade.advance(search, fooled & (step == 1), torch.tensor([objective / (step + 1)]), 2)
        assert over.item() == (step == 1)
    return search


def test_the_worth_rises_tenfold_and_then_halves_its_way() -> None:
    search = trade.start(torch.zeros(1, 1, 2, 2), 0.01)
    worths = []
    for fooled in (NOBODY, NOBODY, EVERYBODY, EVERYBODY, NOBODY):
        search = descend(search, fooled)
        worths.append(round(search.worth.item(), 5))
    assert worths == [0.1, 1.0, 0.55, 0.325, 0.4375]  # between the largest that failed, 0.1, and 1, and so on
    assert search.descents.item() == 5
    assert search.low.item() == torch.tensor(0.325).item()


def test_a_descent_that_stalls_ends_early_and_others_go_on() -> None:
    search, ends = trade.start(torch.zeros(3, 1, 2, 2), 1.0), []
    for step in range(40):
        objective = torch.tensor([5.0 - 0.1 * step, 5.0, 5.0])  # the first row alone makes progress
        search, over = trade.advance(search, torch.tensor([True, True, False]), objective, 40)
        ends.append(over.tolist())
    first, fooled, not_fooled = ([step for step, over in enumerate(ends) if over[row]] for row in range(3))
    assert first == [39]
    assert fooled == [9, 19, 29, 39]  # every second step asks: the first time there is nothing to compare with
    assert not_fooled == [*range(5, 40, 6)]  # twice in vain is enough


def test_a_rise_between_two_checks_ends_nothing() -> None:
    search, ends = trade.start(torch.zeros(1, 1, 2, 2), 1.0), []
    for height in (5.0, 6.0, 4.0, 5.0, 3.0, 4.0, 2.0, 3.0, 1.0, 2.0):  # asked at every step
        search, over = trade.advance(search, EVERYBODY, torch.tensor([height]), 10)
        ends.append(over.item())
    assert ends == [False] * 9 + [True]


def test_a_descent_that_nothing_moves_ends_at_once() -> None:
    search = trade.start(torch.zeros(2, 1, 2, 2), 1.0)
    search, over = trade.advance(search, torch.tensor([False, False]), torch.ones(2), 10, torch.tensor([True, False]))
    assert over.tolist() == [True, False]
    assert search.worth.tolist() == [10.0, 1.0]
