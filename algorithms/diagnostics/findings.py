"""What a check found, and the verdict of all checks (Athalye, Carlini and Wagner 2018, https://arxiv.org/abs/1802.00420).

Every check ends in a count: so many examples of so many show the sign. Honest models show it now and then, on no more
than a share `slack` of them. A check flags if the counted share is larger than that beyond doubt: its exact lower bound
lies above `slack`. The bounds of all checks are taken at the level 1 - 0.05 / checks, so that a model which is honest
by every check is called masked in at most one of twenty diagnoses (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from algorithms.diagnostics import binomial

ERROR = 0.05  # probability that an honest model is flagged by any check
NAMED = 3  # checks that the verdict names
Group = Literal["gradient", "attack", "radius"]


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one check."""

    check: str
    group: Group
    measured: str  # in a sentence
    honest: str  # what an honest model shows
    count: int  # examples that show the sign
    total: int  # examples looked at
    low: float  # lower bound of their share
    slack: float  # share that honest models may show

    @property
    def flagged(self) -> bool:
        """Whether no honest model is likely to show this."""
        return self.low > self.slack

    @property
    def share(self) -> float:
        """Of the examples, how many show the sign."""
        return self.count / self.total if self.total else 0.0


def level(checks: int) -> float:
    """The level of one check's bound where there are so many checks."""
    return 1 - ERROR / max(1, checks)


def bound(count: int, total: int, confidence: float) -> float:
    """The lower bound of a share; zero where nothing was looked at."""
    return binomial.lower(count, total, confidence) if total else 0.0


def flags(findings: Sequence[Finding]) -> list[str]:
    """The checks that flag."""
    return [finding.check for finding in findings if finding.flagged]


def verdict(findings: Sequence[Finding], claimed: float, worst: float) -> str:
    """One line. `claimed`: robust accuracy under the reference attack; `worst`: under all attacks together."""
    found = flags(findings)
    fall = f"robust accuracy {100 * claimed:.1f} % by the reference attack, {100 * worst:.1f} % by all together"
    if not found:
        return f"honest: none of {len(findings)} checks shows masked gradients; {fall}"
    named = ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    return f"masked: {len(found)} of {len(findings)} checks flag ({named}); {fall}"
