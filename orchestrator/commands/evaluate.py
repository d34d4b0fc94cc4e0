"""`sparring evaluate`: the robust accuracy of a trained model."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from orchestrator.terminal import Terminal


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, by name or folder, or a checkpoint.")],
    suite: Annotated[str | None, typer.Option(help="`sparring list suites`, or a TOML file.")] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2, l1, l0 or wasserstein.")] = None,
    eps: Annotated[str | None, typer.Option(help="The radius in pixel units, such as 8/255.")] = None,
    examples: Annotated[int | None, typer.Option(help="The first so many of the test part; 0: all.")] = None,
    surrogate: Annotated[
        str | None, typer.Option(metavar="RUN|CHECKPOINT", help="Make the attacks on this model: a black-box table.")
    ] = None,
    certify: Annotated[
        bool | None, typer.Option("--certify/--no-certify", help="Also l2 radii that hold against every attack.")
    ] = None,
    attackers: Annotated[int | None, typer.Option(help="Workers.")] = None,
) -> None:
    """Attacks a trained model with a suite of attacks. What is left out is as in the run's recipe."""
    from orchestrator.config.text import parse_override  # noqa: PLC0415
    from orchestrator.evaluation import evaluate  # noqa: PLC0415 - torch takes a second
    from orchestrator.evaluations.outcome import ADAPTER  # noqa: PLC0415
    from orchestrator.evaluations.screen import screen  # noqa: PLC0415
    from orchestrator.evaluations.targets import find  # noqa: PLC0415

    terminal: Terminal = context.obj
    recipe = find(target).recipe
    radius = None if eps is None else parse_override(f"eps={eps}")[1]
    wanted = {"suite": suite, "norm": norm, "eps": radius, "examples": examples}
    wanted |= {"surrogate": surrogate, "certify": certify}
    given = checked(recipe.evaluation, {key: value for key, value in wanted.items() if value is not None})
    workers = checked(recipe.workers, {} if attackers is None else {"attackers": attackers})
    with terminal.progress() as listener:
        outcome = evaluate(target, given, workers=workers, listener=listener)
    terminal.show(screen(outcome))
    terminal.say(f"rows, images and plots: {outcome.folder}")
    terminal.result(json.loads(ADAPTER.dump_json(outcome)))


def checked(section: Any, given: dict[str, Any]) -> Any:
    """A section of the run's recipe with what was typed, under the recipe's own checks."""
    from orchestrator.config import RecipeError, build  # noqa: PLC0415 - torch takes a second

    try:
        return build(type(section), given, (), section)
    except RecipeError as error:
        raise RecipeError(error.path, error.problem, "command line") from None
