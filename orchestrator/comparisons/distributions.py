"""Charts of distributions side by side: how far trainings' attacks have converged, and the spectra of their layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from algorithms.diagnostics.density import density, mass
from orchestrator.comparisons.charts import Chart, figure, line
from orchestrator.comparisons.sides import Side, Values
from orchestrator.convergence import CONVERGED
from orchestrator.fosc_plots import WHOLE

POINTS = 200  # of a drawn density
LAYERS = 8  # whose spectra are drawn


def convergence(sides: Sequence[Side]) -> list[Chart]:
    """The first-order condition of the last epoch's examples: kernel densities, as in Figure 2 of Wang et al. 2019."""
    known = [(number, side, side.fosc) for number, side in enumerate(sides) if side.fosc is not None]
    if not known:
        return []
    end = float(np.quantile(np.concatenate([values for _, _, values in known]), WHOLE)) or 1.0
    at = torch.linspace(0, end, POINTS, dtype=torch.float64)
    lines, rows = [], []
    for number, side, values in known:
        sample = torch.from_numpy(values)
        lines.append(line(side.name, list(zip(at.tolist(), density(sample, at).tolist(), strict=True)), number))
        shares = (f"{sample.median().item():.3g}", f"{100 * mass(sample, 0.0, CONVERGED):.1f}")
        rows.append((side.name, f"{len(values):,}", *shares))
    headings = ("run", "examples", "median", f"up to {CONVERGED} (%)")
    title = "First-order condition of the last epoch's adversarial examples"
    return [Chart(title, figure(lines, "FOSC", "density"), headings, rows)]


def spectra(sides: Sequence[Side]) -> list[Chart]:
    """Singular values of each layer, largest first; one chart a layer, for the first few layers."""
    charts = []
    for layer in list(dict.fromkeys(name for side in sides for name in side.spectra))[:LAYERS]:
        known = [(number, side, side.spectra[layer]) for number, side in enumerate(sides) if layer in side.spectra]
        lines = [line(side.name, _ranked(values), number) for number, side, values in known]
        rows = [(side.name, f"{v.max():.4g}", f"{np.median(v):.4g}", f"{v.min():.4g}") for _, side, v in known]
        headings = ("run", "largest", "median", "smallest")
        charts.append(Chart(f"Singular values of {layer}", figure(lines, "rank", "singular value"), headings, rows))
    return charts


def _ranked(values: Values) -> list[tuple[float, float]]:
    """Values with their ranks, from 1; of a long list as many as are drawn, the first and the last among them."""
    ranks = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int))
    return [(float(rank + 1), float(value)) for rank, value in zip(ranks, np.sort(values)[::-1][ranks], strict=True)]
