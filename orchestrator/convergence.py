"""How far the training's own attacks have converged, measured after epochs: figures, rows on the disk, and plots.

Wang et al. 2019 (https://arxiv.org/abs/2112.08304), Figures 2, 3 and 5: the distribution of the first-order condition
over the examples that a defense makes at some stage of the training. Some of an epoch's last examples are made again,
against the parameters after it, and measured; nothing of the training depends on that.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from algorithms.diagnostics.convergence import correlation
from algorithms.diagnostics.density import mass
from orchestrator.backend import Backend
from orchestrator.folders import RunFolder, write_atomically
from orchestrator.fosc_plots import densities, stages, strength
from orchestrator.plan import work_of
from orchestrator.plots import png
from orchestrator.recipe import Recipe
from workers import schedule
from workers.convergence import Convergence, ball_of_training
from workers.messages import Shard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = pa.schema(
    [
        ("epoch", pa.int64()),  # counted from 1
        ("index", pa.int64()),  # of the example within the training part
        ("label", pa.int64()),
        ("fosc", pa.float64()),  # first-order condition of the adversarial image, over the ball
        ("fosc_box", pa.float64()),  # over the images in the ball
        ("loss", pa.float64()),  # cross-entropy of the adversarial image
        ("fooled", pa.bool_()),
        ("backwards", pa.int64()),  # gradient evaluations that the example took
    ]
)
CONVERGED = 0.1  # the share of examples with a condition up to this is what the paper compares


def due(recipe: Recipe, epoch: int) -> bool:
    """Whether epoch number `epoch` (from 0) is measured."""
    wanted = recipe.convergence
    last = epoch + 1 == recipe.train.epochs
    measured = wanted.examples > 0 and ball_of_training(recipe.defense) is not None
    return measured and ((epoch + 1) % wanted.every == 0 or last)


def measure_convergence(recipe: Recipe, examples: int, backend: Backend, epoch: int) -> Any:
    """The rows of an epoch that is just over, as a pyarrow table with SCHEMA. `examples`: in the training part."""
    snapshot = backend.ask_trainer("snapshot")
    keys = [("convergence", shard) for shard in last_shards(recipe, examples, epoch)]
    for key in keys:
        backend.submit(key, "converge", key[1], snapshot)
    return table([result.report for result in backend.collect(keys)], epoch)


def last_shards(recipe: Recipe, examples: int, epoch: int) -> list[Shard]:
    """As many shards as `convergence.examples` asks for, from the end of an epoch."""
    work = work_of(recipe)
    per_epoch = schedule.steps_per_epoch(work, examples)
    count = max(1, round(recipe.convergence.examples / work.shard))
    steps = range((epoch + 1) * per_epoch - 1, epoch * per_epoch - 1, -1)
    return [shard for step in steps for shard in schedule.shards(work, examples, step)][:count]


def table(shards: list[Convergence], epoch: int) -> Any:
    """Measured shards as one table."""
    columns = {f.name: np.concatenate([getattr(s, f.name) for s in shards]) for f in dataclasses.fields(Convergence)}
    columns["epoch"] = np.full(len(columns["index"]), epoch + 1)
    return pa.table([pa.array(columns[f.name], type=f.type) for f in SCHEMA], schema=SCHEMA)


def write(folder: RunFolder, rows: Any) -> Path:
    """Puts an epoch's rows on the disk and returns the file's path."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    path = folder.convergence / f"epoch-{rows['epoch'][0].as_py():04d}.parquet"
    write_atomically(path, buffer.getvalue())
    return path


def read(folder: RunFolder) -> dict[int, Any]:
    """What was measured so far: the rows by the epoch, counted from 1."""
    found = (pq.read_table(path) for path in sorted(folder.convergence.glob("epoch-*.parquet")))
    return {rows["epoch"][0].as_py(): rows for rows in found}


def write_plots(folder: RunFolder) -> list[Path]:
    """Draws what was measured, as PNG files, and returns their paths."""
    written = []
    for name, figure in figures_of(folder).items():
        written.append(folder.convergence / f"{name}.png")
        write_atomically(written[-1], png(figure))
    return written


def figures_of(folder: RunFolder) -> dict[str, Figure]:
    """The plots by name: distributions at some stages of the training, and strength by condition at its end."""
    measured = read(folder)
    if not measured:
        return {}
    shown = stages(list(measured))
    panels = {
        name: {f"epoch {epoch}": measured[epoch][name].to_numpy() for epoch in shown}
        for name in ("fosc", "fosc_box", "loss")
    }
    fosc, loss, fooled = (
        measured[shown[-1]][name].to_numpy(zero_copy_only=False) for name in ("fosc", "loss", "fooled")
    )
    return {"fosc": densities(panels), "fosc-strength": strength(fosc, loss, ~fooled)}


def metrics_of(rows: Any) -> dict[str, float]:
    """An epoch's figures. A correlation is left out where one side does not vary."""
    fosc, box, loss = (torch.from_numpy(rows[name].to_numpy().copy()) for name in ("fosc", "fosc_box", "loss"))
    right = torch.from_numpy(~rows["fooled"].to_numpy(zero_copy_only=False)).double()
    found = {
        "fosc/mean": fosc.mean().item(),
        "fosc/median": fosc.median().item(),
        "fosc/largest": fosc.max().item(),
        "fosc/density_up_to_0.1": mass(fosc, 0.0, CONVERGED),
        "fosc/box_mean": box.mean().item(),
        "fosc/box_largest": box.max().item(),
        "fosc/correlation_with_loss": correlation(fosc, loss),
        "fosc/correlation_with_accuracy": correlation(fosc, right),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}
