"""Runs by hand, of which it is known which examples stand, for tests of comparisons."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from algorithms.attacks.pgd import PGD
from algorithms.defenses.adversarial import Adversarial
from orchestrator import convergence
from orchestrator.config import resolve
from orchestrator.evaluations import figures
from orchestrator.evaluations.figures import Curve, Row
from orchestrator.evaluations.outcome import Outcome
from orchestrator.evaluations.parts import rows_of, write_images, write_rows
from orchestrator.folders import RunFolder, write_json
from orchestrator.recipe import Recipe, Train
from orchestrator.spool import Spool
from workers.judge import Judged, Kept

EPS = 0.3
MEASURED = ("linf", "l2", "l1", "l0", "relative", "wasserstein", "precision", "loss", "loss_adv", "fosc", "fosc_box")


def run_with(folder: Path, fallen: Collection[int], examples: int = 40, **fields: Any) -> RunFolder:
    """A finished run with ten recorded steps, and an evaluation in which the examples `fallen` fell to PGD."""
    run = RunFolder(folder)
    defaults = {"defense": Adversarial(attack=PGD(eps=EPS)), "train": Train(epochs=2, batch=64)}
    write_json(run.recipe, resolve(Recipe(**(defaults | fields))))
    with Spool(run.records) as spool:
        for step in range(10):
            spool.metrics("step", step, {"train/loss": 2.0 - 0.1 * step, "cost/backwards_per_example": 7.0})
        spool.metrics("epoch", 0, {"validation/clean_accuracy": 0.9, "validation/robust_accuracy": 0.5})
    write_json(run.summary, {"metrics": {}})
    evaluated(run, fallen, examples)
    return run


def evaluated(run: RunFolder, fallen: Collection[int], examples: int) -> None:
    """An evaluation of a run."""
    index = np.arange(examples)
    success = np.isin(index, list(fallen))
    changed = np.where(success, 0.2, 0.0)
    same: dict[str, Any] = dict.fromkeys(MEASURED, changed)
    images = np.random.default_rng(0).random((2, 2, 1, 4, 4), np.float32)
    kept = Kept(index=index[:2], clean=images[0], adversarial=images[1])
    judged = Judged(
        index=index,
        label=index % 10,
        predicted=index % 10,
        predicted_adv=(index + success) % 10,
        success=success,
        confidence=np.ones(examples),
        confidence_adv=np.ones(examples),
        forwards=np.full(examples, 21),
        backwards=np.full(examples, 20),
        certified=np.full(examples, np.nan),
        margin=np.full(examples, np.nan),
        kept=kept,
        **same,
    )
    distances = np.where(success, 0.2, np.inf)
    share = figures.wilson(int((~success).sum()), examples)
    outcome = Outcome(
        run=run.name,
        suite="quick",
        norm="linf",
        eps=EPS,
        examples=examples,
        table=(
            Row("clean", examples, figures.wilson(examples, examples), "together", 0.0, 0.0, None, None),
            Row("PGD-20", examples, share, "alone", 21.0, 20.0, None, None),
            Row("worst case", examples, share, "together", 0.0, 0.0, None, None),
        ),
        curves=(figures.point_curve("worst case", "linf", distances, [0.1, 0.3], 16), minimal(distances)),
        shown="PGD-20",
        classes=tuple("abcdefghij"),
        folder=run.evaluations / "quick-0123456789ab",
    )
    write_rows(outcome.parquet, rows_of(judged, "PGD-20", EPS))
    write_images(outcome.images, kept)
    outcome.write()


def converged(run: RunFolder, epoch: int, conditions: Collection[float]) -> None:
    """What was measured of the training's attacks after an epoch, counted from 1."""
    count = len(conditions)
    columns: dict[str, Any] = {name: np.zeros(count) for name in convergence.SCHEMA.names}
    columns |= {"epoch": np.full(count, epoch), "fosc": np.array(conditions), "fooled": np.zeros(count, bool)}
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in convergence.SCHEMA]
    convergence.write(run, pa.table(arrays, schema=convergence.SCHEMA))


def with_spectra(run: RunFolder, **layers: Collection[float]) -> None:
    """Singular values by layer."""
    write_json(run.spectra, {"epoch": 0, "singular_values": {k: list(v) for k, v in layers.items()}, "eigenvalues": {}})


def minimal(distances: Any) -> Curve:
    """The curve of a minimal-norm attack."""
    return figures.step_curve("DDN", "l2", distances)
