"""Bounds against SciPy's, and how often an honest model is flagged."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from algorithms.diagnostics import binomial, findings
from algorithms.diagnostics.findings import Finding


@pytest.mark.parametrize(("count", "total"), [(1, 5), (3, 5), (5, 5), (12, 128), (128, 128), (400, 1000), (1, 9000)])
@pytest.mark.parametrize("level", [0.9, 0.997])
def test_bounds_are_clopper_and_pearsons(count: int, total: int, level: float) -> None:
    expected = stats.beta.ppf(1 - level, count, total - count + 1)
    assert binomial.lower(count, total, level) == pytest.approx(expected, rel=1e-6)
    upper = 1.0 if count == total else stats.beta.ppf(level, count + 1, total - count)
    assert binomial.upper(count, total, level) == pytest.approx(upper, rel=1e-6)


def test_no_hit_bounds_nothing() -> None:
    assert binomial.lower(0, 7, 0.95) == 0
    assert binomial.tail(0, 7, 0.2) == 1
    with pytest.raises(ValueError, match="between 0 and total = 4"):
        binomial.lower(5, 4, 0.95)


def finding(count: int, total: int, slack: float, checks: int = 15) -> Finding:
    low = findings.bound(count, total, findings.level(checks))
    return Finding(
        check=f"{count} of {total}",
        group="attack",
        measured="",
        honest="",
        count=count,
        total=total,
        low=low,
        slack=slack,
    )


@pytest.mark.parametrize("total", [32, 128])
@pytest.mark.parametrize("slack", [0.02, 0.1, 0.25])
def test_a_model_at_the_edge_of_honesty_is_seldom_flagged_and_a_masked_one_often(total: int, slack: float) -> None:
    flagged = [count for count in range(total + 1) if finding(count, total, slack).flagged]
    least = min(flagged)
    assert flagged == list(range(least, total + 1))
    assert 15 * stats.binom.sf(least - 1, total, slack) <= 0.05 + 1e-9  # all checks together, in the worst case
    assert stats.binom.sf(least - 1, total, slack + 0.4) > 0.9


def test_more_checks_ask_for_more_evidence() -> None:
    assert finding(20, 128, 0.1, checks=1).low > finding(20, 128, 0.1, checks=20).low
    assert findings.bound(0, 0, 0.95) == 0


def test_the_verdict_is_one_line() -> None:
    honest, masked = finding(1, 128, 0.1), finding(90, 128, 0.1)
    assert not honest.flagged
    assert masked.flagged
    said = findings.verdict([honest], 0.5, 0.45)
    assert said.startswith("honest: none of 1 checks shows masked gradients; robust accuracy 50.0 %")
    assert said.endswith("45.0 % by all together")
    assert findings.verdict([honest, masked], 0.5, 0.0).startswith("masked: 1 of 2 checks flag (90 of 128); ")
    assert "and 1 more" in findings.verdict([masked] * 4, 0.5, 0.0)
    assert "\n" not in findings.verdict([masked] * 20, math.nan, 0.0)
