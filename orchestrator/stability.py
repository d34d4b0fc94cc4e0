"""The stability of a run's model: measured by an attacker after an epoch, kept in the run's folder for its page."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from orchestrator.backend import Backend, Handle
from orchestrator.folders import RunFolder, write_atomically, write_json
from orchestrator.plots import png, spectra
from orchestrator.tracking import Tracker
from workers.stability import Stability

PREFIX = "stability/"  # of its figures' names


def watch(backend: Backend, weights: Handle) -> Stability:
    """What an attacker measures of the weights."""
    key = ("stability",)
    backend.submit(key, "stability", weights)
    (result,) = backend.collect([key])
    found: Stability = result.report
    return found


def record(stability: Stability, epoch: int, folder: RunFolder) -> dict[str, float]:
    """Keeps the spectra, the newest of which the page shows, and returns the figures by their names in MLflow."""
    parts = {name: np.stack([v.real, v.imag], 1).tolist() for name, v in stability.eigenvalues.items()}
    sizes = {name: values.tolist() for name, values in stability.singular_values.items()}
    write_json(folder.spectra, {"epoch": epoch, "singular_values": sizes, "eigenvalues": parts})
    return {PREFIX + name: value for name, value in stability.figures.items()}


def publish(folder: RunFolder, tracker: Tracker) -> None:
    """Draws the spectra that the folder holds, and sends plot and numbers to MLflow."""
    kept = spectra_in(folder)
    if kept is None:
        return
    picture = folder.spectra.with_suffix(".png")
    write_atomically(picture, png(spectra(*kept)))
    for path in (folder.spectra, picture):
        tracker.artifact(path, folder.spectra.parent.name)


Values = dict[str, NDArray[np.float64]]


def spectra_in(folder: RunFolder) -> tuple[Values, Values] | None:
    """Singular values and eigenvalues (as rows of real and imaginary part) by layer; None where none were kept."""
    if not folder.spectra.is_file():
        return None
    stored = json.loads(folder.spectra.read_bytes())
    sizes, parts = ({n: np.array(v) for n, v in stored[key].items()} for key in ("singular_values", "eigenvalues"))
    return sizes, parts
