"""The theorem's terms as a run writes them."""

from __future__ import annotations

import json

import pytest

from algorithms.diagnostics.minimax import Constants
from orchestrator.theorem import NOTE, piecewise_means, terms_of


def test_the_terms_by_hand() -> None:
    """L = 8 as in the paper's formula; the loss falls from 2.5 to 0.5, so the gap is 2."""
    losses = [2.5] + [1.0] * 199 + [0.5] * 200
    terms = terms_of(Constants(4.0, 2.0, 3.0, 1.5, 0.25), 0.03, losses)
    assert terms["optimisation_term_estimate"] == pytest.approx(0.4)
    assert terms["attack_term_estimate"] == pytest.approx(0.4)
    assert (terms["delta"], terms["steps"], terms["loss_gap_estimate"]) == (0.03, 400, 2.0)


def test_without_concavity_there_are_no_terms_and_the_file_says_why() -> None:
    terms = terms_of(Constants(4.0, 2.0, 3.0, -0.1, 0.25), 0.03, [1.0, 0.5])
    assert terms["attack_term_estimate"] is terms["optimisation_term_estimate"] is None
    assert terms["concavity_estimate"] == -0.1
    assert json.loads(json.dumps(terms))["note"] == NOTE


def test_means_over_stretches() -> None:
    assert piecewise_means([3.0, 1.0]) == [3.0, 1.0]
    assert piecewise_means(list(range(40)))[:2] == [0.5, 2.5]
    assert len(piecewise_means(list(range(1000)))) == 20
