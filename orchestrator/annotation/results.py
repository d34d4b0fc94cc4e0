"""What annotators' answers add up to: whether adversarial images changed people's minds, and how far people agree.

Matyasko 2020, Table 4.2 counts answers that are the adversarial class ("changed") and the original one ("unchanged").
Agreement is Fleiss' kappa (1971, https://doi.org/10.1037/h0031619) over the images that all annotators answered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from orchestrator.annotation.sheet import UNSURE, Sheet
from orchestrator.evaluations.figures import Share, wilson
from orchestrator.evaluations.screen import percent

if TYPE_CHECKING:
    from rich.table import Table


@final
@dataclass(frozen=True)
class Minds:
    """Of one annotator, or of all together."""

    who: str
    answers: int
    changed: Share | None  # the adversarial class; None without answers
    unchanged: Share | None  # the original class
    unsure: Share | None


def minds(sheet: Sheet) -> list[Minds]:
    """A line an annotator, and one for all answers together."""
    truth = {int(i): (int(a), int(b)) for i, a, b in zip(sheet.index, sheet.label, sheet.adversarial, strict=True)}
    given = {who: [(truth[i], a.answer) for i, a in sheet.answers(who).items()] for who in sheet.annotators()}
    everything = [pair for pairs in given.values() for pair in pairs]
    return [tally(who, pairs) for who, pairs in [*given.items(), ("all", everything)]]


def tally(who: str, pairs: Sequence[tuple[tuple[int, int], int]]) -> Minds:
    """What answers add up to. `pairs`: of each image the original class and the adversarial one, and the answer."""
    total = len(pairs)
    if not total:
        return Minds(who, 0, None, None, None)
    changed = sum(answer == adversarial for (_, adversarial), answer in pairs)
    unchanged = sum(answer == label for (label, _), answer in pairs)
    unsure = sum(answer == UNSURE for _, answer in pairs)
    return Minds(who, total, wilson(changed, total), wilson(unchanged, total), wilson(unsure, total))


def agreement(sheet: Sheet) -> float:
    """Fleiss' kappa over the images that all annotators have answered; NaN with fewer than two of either."""
    given = [sheet.answers(who) for who in sheet.annotators()]
    common = [int(index) for index in sheet.index if all(int(index) in answers for answers in given)]
    if len(given) < 2 or len(common) < 2:
        return math.nan
    counts = np.zeros((len(common), len(sheet.classes) + 1), np.int64)  # the last column is "?"
    for row, index in enumerate(common):
        for answers in given:
            counts[row, answers[index].answer] += 1
    return fleiss_kappa(counts)


def fleiss_kappa(counts: NDArray[np.int64]) -> float:
    """Of `counts` (images, categories): how many annotators chose each category; every row has the same sum.

    1 for perfect agreement, 0 for as much as chance gives, and 1 where all chose one category throughout.
    """
    raters = int(counts[0].sum())
    within = ((counts * (counts - 1)).sum(1) / (raters * (raters - 1))).mean()
    chance = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return 1.0 if chance == 1 else float((within - chance) / (1 - chance))


def metrics(sheet: Sheet) -> dict[str, float]:
    """Names and values for MLflow."""
    together, kappa = minds(sheet)[-1], agreement(sheet)
    found = {"annotation/annotators": float(len(sheet.annotators())), "annotation/answers": float(together.answers)}
    for name in ("changed", "unchanged", "unsure"):
        share = getattr(together, name)
        if share is not None:
            found[f"annotation/{name}"] = share.value
    return found if math.isnan(kappa) else found | {"annotation/agreement": kappa}


def screen(sheet: Sheet) -> Table:
    """The table for a terminal."""
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    kappa = agreement(sheet)
    said = "" if math.isnan(kappa) else f"; agreement (Fleiss' kappa) {kappa:.2f}"
    shown = Table(title=f"{len(sheet.index)} adversarial images{said}")
    for heading in ("annotator", "answers", "label changed", "label unchanged", "?"):
        shown.add_column(heading, justify="left" if heading == "annotator" else "right")
    for one in minds(sheet):
        shares = ("" if share is None else percent(share.value) for share in (one.changed, one.unchanged, one.unsure))
        shown.add_row(one.who, str(one.answers), *shares)
    return shown
