"""Range checks for the fields of plug-ins: one sentence with the field, what is expected and what came."""

from __future__ import annotations

import math


def between(field: str, value: float, low: float, high: float, what: str) -> None:
    """Raises ValueError unless `low <= value <= high`. `what` says what the number means, with its unit."""
    if not low <= value <= high:
        bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
        raise ValueError(f"{field}: {what}, {bounds}, not {value:g}")


def at_least(field: str, value: float, low: float, what: str) -> None:
    """Raises ValueError unless `value >= low` and is finite."""
    if not math.isfinite(value):
        raise ValueError(f"{field}: {what}, a finite number, not {value:g}")
    between(field, value, low, math.inf, what)


def radius(norm: str, eps: float) -> None:
    """Raises ValueError unless `eps` is a radius that makes sense for images in [0, 1]."""
    high = 1.0 if norm == "linf" else math.inf
    moved = "a cost of transport per unit of mass"
    between("eps", eps, 0, high, moved if norm == "wasserstein" else "a radius in pixel units (pixels are in [0, 1])")
