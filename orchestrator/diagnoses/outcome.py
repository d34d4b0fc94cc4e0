"""What a diagnosis found: the checks, a verdict, and where the rest lies."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np
import torch
from pydantic import TypeAdapter

from algorithms.balls import Norm
from algorithms.diagnostics import findings
from algorithms.diagnostics.findings import Finding
from algorithms.diagnostics.signs import Sign
from algorithms.diagnostics.solver_steps import Grid
from orchestrator.budgets import Rival
from orchestrator.diagnoses.settings import Settings
from orchestrator.diagnoses.stages import RADIUS, STEPS, Stages, radii
from orchestrator.evaluations.figures import Curve, Point, Share, wilson
from orchestrator.evaluations.screen import percent
from orchestrator.folders import write_atomically
from orchestrator.metrics import printable
from workers.prober import Columns

if TYPE_CHECKING:
    from rich.table import Table

SLACK = 0.1  # share of the examples that an honest model may lose to a rival of the reference attack
HEADINGS = ("check", "measured", "an honest model shows", "examples", "at least", "")
COUNTED = "an honest model loses less than {} of the examples to it"


@final
@dataclass(frozen=True)
class Stand:
    """Robust accuracy under one attack together with the reference."""

    attack: str
    asks: str
    accuracy: Share


@final
@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The figures of a diagnosis. `folder` holds `columns.npz`, `diagnosis.html`, plots, and this as JSON."""

    run: str
    budget: str
    norm: Norm
    eps: float
    examples: int
    clean: Share
    claimed: Share  # robust accuracy under the reference attack
    worst: Share  # under all attacks together
    stands: tuple[Stand, ...]  # the reference, then each rival
    findings: tuple[Finding, ...]
    growth: Curve  # the reference attack against the radius
    steps: tuple[Grid, ...]  # of the solvers of neural ODEs, on the first examples as one batch
    notes: tuple[str, ...]
    folder: Path

    @property
    def masked(self) -> bool:
        """Whether any check flags."""
        return bool(findings.flags(self.findings))

    @property
    def verdict(self) -> str:
        """One line."""
        return findings.verdict(self.findings, self.claimed.value, self.worst.value)

    @property
    def page(self) -> Path:
        """The page that shows it, HTML."""
        return self.folder / "diagnosis.html"

    def metrics(self) -> dict[str, float]:
        """Names and values for MLflow; names have only letters, digits, `_`, `-`, `.` and `/`."""
        head = f"diagnosis/{self.budget}"
        found = {
            f"{head}/masked": float(self.masked),
            f"{head}/flags": float(len(findings.flags(self.findings))),
            f"{head}/examples": float(self.examples),
            f"{head}/accuracy/claimed": self.claimed.value,
            f"{head}/accuracy/worst": self.worst.value,
        }
        for finding in self.findings:
            name = printable(finding.check)
            found[f"{head}/share/{name}"] = finding.share
        return found | {f"{head}/steps/{name}": value for grid in self.steps for name, value in stepped(grid).items()}

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it, verdict and flags with it."""
        told: dict[str, Any] = json.loads(ADAPTER.dump_json(self))
        for entry, finding in zip(told["findings"], self.findings, strict=True):
            entry["flagged"] = finding.flagged
        return {"verdict": self.verdict, "masked": self.masked, **told}

    def write(self) -> None:
        """Puts the diagnosis beside what it sums up."""
        content = ADAPTER.dump_json(self, indent=2, exclude={"folder"})  # it may be moved
        write_atomically(self.folder / "diagnosis.json", content + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The outcome of a finished diagnosis; None if there is none, or it cannot be read."""
        try:
            stored = json.loads((folder / "diagnosis.json").read_bytes())
            found: Self = ADAPTER.validate_python({**stored, "folder": folder})
        except (OSError, ValueError, TypeError):  # not finished, or damaged: it is made again
            return None
        return found if found.page.is_file() else None


ADAPTER: TypeAdapter[Any] = TypeAdapter(Diagnosis)


def stepped(grid: Grid) -> dict[str, float]:
    """A block's steps after so many iterations of PGD as figures: their number, the field's evaluations, each time."""
    head = f"{grid.block}/{grid.iterations}"
    times = {f"{head}/time_{place}": time for place, time in enumerate(grid.times)}
    return {f"{head}/count": len(grid.times) - 1.0, f"{head}/evaluations": float(grid.evaluations), **times}


def concluded(settings: Settings, stages: Stages, signs: dict[str, Sign], run: str, folder: Path) -> Diagnosis:
    """The figures from the rows of all stages."""
    reference, total = settings.budget.reference, settings.examples
    found = stages.found[reference.label]
    rivals = [rival for rival in settings.budget.rivals if rival.label in stages.found]
    fallen = {rival.label: stages.fallen(rival.label, settings.eps) for rival in rivals}
    standing = int((~found["success"]).sum())
    level = findings.level(len(signs) + len(rivals) + 1)
    every: set[int] = set().union(*(indices.tolist() for indices in fallen.values()))
    stands = [Stand(r.label, r.asks, wilson(standing - len(fallen[r.label]), total)) for r in rivals]
    return Diagnosis(
        run=run,
        budget=settings.budget.name,
        norm=settings.norm,
        eps=settings.eps,
        examples=total,
        clean=wilson(int((found["predicted"] == found["label"]).sum()), total),
        claimed=wilson(standing, total),
        worst=wilson(standing - len(every), total),
        stands=(Stand(reference.label, "the reference", wilson(standing, total)), *stands),
        findings=(
            *(seen(name, sign, stages.found[name], level) for name, sign in signs.items()),
            *(escaped(rival, len(fallen[rival.label]), (standing, total), level) for rival in rivals),
            unbounded(settings, stages, level),
        ),
        growth=growth(settings, stages, standing),
        steps=steps_of(stages),
        notes=notes_of(stages),
        folder=folder,
    )


def seen(name: str, sign: Sign, columns: Columns, level: float) -> Finding:
    """What a sign shows on the examples that are predicted right."""
    right = columns["right"]
    count, total = int(columns["shows"][right].sum()), int(right.sum())
    chosen = {key: torch.from_numpy(column[right]) for key, column in columns.items()}
    return Finding(
        check=name.replace("_", " "),
        group="gradient",
        measured=sign.summary(chosen) if total else "no example is predicted right",
        honest=sign.honest,
        count=count,
        total=total,
        low=findings.bound(count, total, level),
        slack=sign.slack,
    )


def escaped(rival: Rival, fell: int, among: tuple[int, int], level: float) -> Finding:
    """What a rival fools that the reference attack does not. `among`: examples standing, and all."""
    standing, total = among
    return Finding(
        check=rival.label,
        group="attack",
        measured=(
            f"{rival.asks or 'another attack'}: it fools {fell} of the {standing} that the reference attack leaves; "
            f"accuracy {percent(standing / total)} falls to {percent((standing - fell) / total)}"
        ),
        honest=COUNTED.format(percent(SLACK)),
        count=fell,
        total=total,
        low=findings.bound(fell, total, level),
        slack=SLACK,
    )


def unbounded(settings: Settings, stages: Stages, level: float) -> Finding:
    """What still stands when the attack may choose any image at all."""
    left, total, chance = growth_of(settings, stages)[-1], settings.examples, 1 / settings.classes
    return Finding(
        check="the whole box",
        group="radius",
        measured=f"the reference attack leaves {left} of {total} standing where every image is within its reach",
        honest=f"accuracy falls to {percent(chance)}, that of chance, or below",
        count=left,
        total=total,
        low=findings.bound(left, total, level),
        slack=chance,
    )


def growth_of(settings: Settings, stages: Stages) -> list[int]:
    """How many examples stand at each radius beyond eps."""
    left = int((~stages.found[settings.budget.reference.label]["success"]).sum())
    counts = []
    for eps in radii(settings):
        left -= len(stages.fallen(RADIUS.format(eps), eps))
        counts.append(left)
    return counts


def growth(settings: Settings, stages: Stages, standing: int) -> Curve:
    """Robust accuracy under the reference attack, from no radius to the whole box."""
    found = stages.found[settings.budget.reference.label]
    clean = int((found["predicted"] == found["label"]).sum())
    counts = [clean, standing, *growth_of(settings, stages)]
    points = zip([0.0, settings.eps, *radii(settings)], counts, strict=True)
    shares = tuple(Point(eps, wilson(count, settings.examples)) for eps, count in points)
    return Curve(settings.budget.reference.label, settings.norm, settings.examples, False, shares)


def steps_of(stages: Stages) -> tuple[Grid, ...]:
    """The steps of each block."""
    found = stages.found.get(STEPS)
    if found is None:
        return ()
    names = ("block", "iterations", "times", "rejected", "evaluations")
    rows = zip(*(found[name].tolist() for name in names), strict=True)
    return tuple(
        Grid(block, k, tuple(time for time in times if not math.isnan(time)), *rest) for block, k, times, *rest in rows
    )


def notes_of(stages: Stages) -> tuple[str, ...]:
    """What else a reader should know."""
    if stages.agreement is None:
        return ()
    return (f"the substitute gives the model's class on {percent(stages.agreement)} of the images it was trained on",)


def evidence(stages: Stages) -> Columns:
    """All that was measured, as one file's arrays."""
    return {
        f"{label}/{name}": np.asarray(column)
        for label, columns in stages.found.items()
        for name, column in columns.items()
    }


def screen(diagnosis: Diagnosis) -> Table:
    """The evidence as a table for a terminal."""
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    radius = f"{diagnosis.norm}, eps = {diagnosis.eps:.4g}"
    table = Table(title=f"{diagnosis.run}: {diagnosis.budget} diagnosis, {diagnosis.examples} test examples ({radius})")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("examples", "at least") else "left")
    for finding in diagnosis.findings:
        table.add_row(*cells(finding), style="bold" if finding.flagged else None)
    return table


def cells(finding: Finding) -> tuple[str, ...]:
    """A finding as texts, under HEADINGS."""
    return (
        finding.check,
        finding.measured,
        finding.honest,
        f"{finding.count} of {finding.total}",
        percent(finding.low),
        "FLAG" if finding.flagged else "pass",
    )
