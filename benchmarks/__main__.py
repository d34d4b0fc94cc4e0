"""`python -m benchmarks [name ...] [--json FILE]`: runs benchmarks, prints a table of ratios, and writes JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from workers import runtime

HERE = Path(__file__).parent
HELPERS = ("__init__", "__main__", "data", "measuring", "rivals")
ON_REQUEST = ("peers",)  # run where it is named: it needs other packages, and many minutes


def known() -> list[str]:
    """Each file beside this one is a benchmark with a function `run() -> list[Row]`."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in HELPERS)


def main() -> None:
    """Runs what is named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    usual = [name for name in known() if name not in ON_REQUEST]
    which = f"of {', '.join(known())}; if none is named: {', '.join(usual)}"
    parser.add_argument("names", nargs="*", choices=[*known(), []], help=which)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    runtime.keep_memory()  # as in workers: what a pass waits for is then arithmetic
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"
    print(machine)
    found = {}
    for name in chosen.names or usual:
        rows = importlib.import_module(f"benchmarks.{name}").run()
        found[name] = [row.plain() for row in rows]
        for row in rows:
            times = f"{row.ratio:6.3f} of {row.against:34} ({row.low:.3f} to {row.high:.3f})"
            print(f"{row.what:44} {times} {row.seconds:8.3g} s  {row.note}".rstrip(), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": machine, "benchmarks": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
