"""What a neural ODE's solver does to attacks: a recipe, trained and attacked with several (Huang et al. 2021).

    python -m studies.solvers recipes/digits-soblock.toml --solvers euler,rk4,dopri5:0.1,bosh3:0.1 --gains 1,4

Trains the recipe for each solver and gain, runs the recipe's suite, and on adaptive solvers the suite `ode-solvers`
too, which attacks with the gradients of other solvers. Prints the table (the paper's Table 3 with the columns of
Table 2); `key=value` at the end changes all recipes. What is finished is not made again: an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import NamedTuple

from orchestrator import Recipe, evaluate, train
from orchestrator.evaluations.outcome import Outcome, percent
from orchestrator.folders import RunFolder
from orchestrator.plan import digest_of

FIXED = ("euler", "rk4")
OWN = ("clean", "PGD-20", "PGD-100", "CW-inf", "SPSA")  # columns from the recipe's suite
OTHER = ("through the step sizes", "4 steps of RK4", "one step of Euler")  # and from `ode-solvers`


class Row(NamedTuple):
    """A network of the table."""

    solver: str  # "euler", or "dopri5:0.1"
    gain: float
    accuracies: dict[str, float]


def main() -> None:
    """Runs the study that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path, help="a recipe whose model is soblock or sonet")
    parser.add_argument("--solvers", default="euler,rk4,dopri5:0.1,bosh3:0.1,adaptive_heun:0.1,dopri5:0.001")
    parser.add_argument("--gains", default="1", help="first weights of the norms on the derivatives")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes to the recipe")
    arguments = parser.parse_intermixed_args()
    rows: list[Row] = []
    for gain in arguments.gains.split(","):
        for solver in arguments.solvers.split(","):
            rows.append(measured(arguments.recipe, solver, float(gain), arguments.changes))
            print(f"\n{table(rows)}", flush=True)


def measured(path: Path, solver: str, gain: float, changes: list[str]) -> Row:
    """Trains and attacks one network, as far as that is not done already."""
    recipe = Recipe.load(path, [*changes, f"model.solver={setting(solver)}", f"model.block.gain={gain}"])
    folder = RunFolder(Path(recipe.tracking.folder).resolve() / f"{recipe.name}-{digest_of(recipe)[:8]}")
    if not folder.summary.exists():
        train(recipe)
    accuracies = found(evaluate(folder.path))
    if solver not in FIXED:
        accuracies |= found(evaluate(folder.path, dataclasses.replace(recipe.evaluation, suite="ode-solvers")))
    return Row(solver, gain, accuracies)


def setting(solver: str) -> str:
    """A solver as a recipe has it: `dopri5:0.1` is dopri5 at tolerance 0.1."""
    method, _, tolerance = solver.partition(":")
    return f'{{method="{method}"' + (f", tolerance={tolerance}" if tolerance else "") + "}"


def found(outcome: Outcome) -> dict[str, float]:
    """Accuracies by the attacks' labels."""
    return {row.attack: row.accuracy.value for row in outcome.table if row.accuracy is not None}


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    columns = (*OWN, *OTHER)
    lines = [f"| solver | gain | {' | '.join(columns)} |", "| --- " * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [percent(row.accuracies[name]) if name in row.accuracies else "" for name in columns]
        lines.append(f"| {row.solver} | {row.gain:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
