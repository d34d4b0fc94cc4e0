"""What a user waits for before anything happens: help, a dry run, the first step, a comparison of many runs.

Each is a process of its own, over a bare one that only imports the libraries that it cannot do without.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import WALL, Row, paired, seconds_of

SPARRING = Path(sys.executable).with_name("sparring")
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "digits-pgd.toml"
RUNS, EXAMPLES = 50, 10_000  # of the comparison
STEP = "train/loss"  # the first record of it is the first step


def sparring(*arguments: str) -> None:
    """The command, to its end."""
    subprocess.run([SPARRING, *arguments], check=True, capture_output=True)


def python(*modules: str) -> None:
    """A process that imports modules and nothing more."""
    subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], check=True, capture_output=True)


def first_step(backend: str) -> float:
    """Seconds until a training of digits has recorded a step; how it stops then is not counted."""
    began = WALL()
    with tempfile.TemporaryDirectory() as folder:
        asked = [f"tracking.folder={folder}", f"workers.backend={backend}", "train.epochs=1000", "--quiet"]
        with subprocess.Popen(
            [SPARRING, "train", RECIPE, *asked], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as training:
            while not any(STEP in file.read_text() for file in Path(folder).glob("*/records/records.jsonl")):
                if training.poll() is not None:
                    raise RuntimeError(f"the training ended with code {training.returncode} before its first step")
                time.sleep(0.02)
            took = WALL() - began
            training.terminate()
        return took


def compared(folder: Path) -> None:
    """All runs of a folder side by side, the page written and logged."""
    names = sorted(path.parent.name for path in folder.glob("*/recipe.json"))
    sparring("compare", *names, "--folder", str(folder), "--page", str(folder / "page.html"))


def copies(folder: Path) -> None:
    """One evaluated run, and copies of it under other names."""
    sparring("train", str(RECIPE), f"tracking.folder={folder}", "train.epochs=1", "workers.backend=inline")
    (first,) = (path.parent for path in folder.glob("*/recipe.json"))
    repeat(first)
    for number in range(1, RUNS):
        subprocess.run(["cp", "-r", first, f"{first}-{number}"], check=True)


def repeat(run: Path) -> None:
    """An evaluation's rows again and again, with other indices, until there are as many examples as asked."""
    import pyarrow as pa  # noqa: PLC0415 - only here
    import pyarrow.parquet as pq  # noqa: PLC0415

    for file in run.glob("evaluations/*/examples.parquet"):
        rows = pq.read_table(file)
        tables, span = [], max(rows["index"].to_pylist()) + 1
        for number in range(-(-EXAMPLES // span)):
            index = pa.array([value + number * span for value in rows["index"].to_pylist()], rows["index"].type)
            tables.append(rows.set_column(rows.column_names.index("index"), "index", index))
        pq.write_table(pa.concat_tables(tables), file)
        outcome = json.loads((file.parent / "outcome.json").read_text())
        (file.parent / "outcome.json").write_text(json.dumps(outcome | {"examples": EXAMPLES}))


def whole(command: Callable[..., None], *arguments: Any) -> Callable[[], float]:
    """A function that gives a command's seconds from its start to its end."""
    return partial(seconds_of, partial(command, *arguments), WALL)


def run() -> list[Row]:
    """By the clock."""
    with tempfile.TemporaryDirectory() as folder:
        copies(Path(folder))
        pairs: list[tuple[str, tuple[str, ...], Callable[[], float]]] = [
            ("sparring --help", ("typer", "rich"), whole(sparring, "--help")),
            ("sparring train --dry-run", ("torch",), whole(sparring, "train", str(RECIPE), "--dry-run")),
            ("first step of digits, in one process", ("torch",), partial(first_step, "inline")),
            ("first step of digits, on Ray", ("torch", "ray"), partial(first_step, "ray")),
            (f"sparring compare, {RUNS} runs", ("torch", "mlflow"), whole(compared, Path(folder))),
        ]
        return [paired((what, f"import {', '.join(m)}"), ours, whole(python, *m), 3) for what, m, ours in pairs]
