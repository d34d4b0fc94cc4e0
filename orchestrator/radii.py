"""Columns of a study that are at several radii, written once: as text, before it is a study.

    [[columns]]
    title = "FAB"
    figure = "accuracy/FAB"
    at = [0.2, 0.3]

    [[rows]]
    published = {FAB = [93.8, 91.4]}

stands for the columns `FAB, 0.2` and `FAB, 0.3`, each with its published figure. Columns that follow one another and
have the same radii are ordered by radius, as tables of attacks are.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from orchestrator.config import RecipeError

Tables = dict[str, Any]


def spread(tables: Tables) -> Tables:
    """The tables of a study's file with a column for each radius. What is not as it should be stays, for others to say.

    Raises RecipeError for published figures that are not as many as the radii.
    """
    columns, rows = _tables(tables, "columns"), _tables(tables, "rows")
    radii = {str(column.get("title")): column["at"] for column in columns if isinstance(column.get("at"), list)}
    if not radii:
        return tables
    spread_rows = [
        {**row, "published": _figures(row["published"], radii, number)} if _published(row) else row
        for number, row in enumerate(rows)
    ]
    return {**tables, "columns": _columns(columns), "rows": spread_rows}


def named(title: str, radius: Any) -> str:
    """The title of a column at one radius: as it is written, if that is a fraction."""
    return f"{title}, {radius:g}" if isinstance(radius, int | float) else f"{title}, {radius}"


def _tables(tables: Tables, key: str) -> list[Tables]:
    """The tables of a list, or none if any is something else."""
    found = tables.get(key)
    sound = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    return list(found or []) if sound else []


def _published(row: Tables) -> bool:
    return isinstance(row.get("published"), dict)


def _columns(columns: list[Tables]) -> list[Tables]:
    """A column for each radius, in the order of the radii among columns that share them."""
    made: list[Tables] = []
    for at, group in itertools.groupby(columns, key=lambda column: column.get("at")):
        same = list(group)
        if isinstance(at, list):
            made += [{**c, "title": named(str(c.get("title")), radius), "at": radius} for radius in at for c in same]
        else:
            made += same
    return made


def _figures(published: Tables, radii: dict[str, list[Any]], row: int) -> Tables:
    """What a paper prints, by the titles of the columns that there will be; where it is unknown (`nan`), nothing."""
    made: Tables = {}
    for title, figures in published.items():
        if title not in radii or not isinstance(figures, list):
            made[title] = figures
            continue
        if len(figures) != len(radii[title]):
            problem = f"a figure for each of {len(radii[title])} radii, nan for an unknown one, not {len(figures)}"
            raise RecipeError(("rows", row, "published", title), problem)
        pairs = zip(radii[title], figures, strict=True)
        made |= {named(title, radius): f for radius, f in pairs if not (isinstance(f, float) and math.isnan(f))}
    return made
