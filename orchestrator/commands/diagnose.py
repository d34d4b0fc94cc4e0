"""`sparring diagnose`: is the robustness of a trained model real, or are its gradients masked? With evidence."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.terminal import Terminal


def run(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, by name or folder, or a checkpoint.")],
    budget: Annotated[str, typer.Option(help="quick, full, or a TOML file.")] = "quick",
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1.")] = None,
    eps: Annotated[str | None, typer.Option(help="The radius in pixel units, such as 8/255.")] = None,
    examples: Annotated[
        int | None, typer.Option(help="The first so many of the test part, instead of what the budget affords.")
    ] = None,
    attackers: Annotated[int | None, typer.Option(help="Workers.")] = None,
) -> None:
    """Tells real robustness from masked gradients: a verdict, its evidence as a table, and a page with plots."""
    from orchestrator.commands.evaluate import checked  # noqa: PLC0415
    from orchestrator.commands.train import nearby  # noqa: PLC0415
    from orchestrator.config.text import parse_override  # noqa: PLC0415
    from orchestrator.diagnoses.outcome import screen  # noqa: PLC0415
    from orchestrator.diagnosis import diagnose  # noqa: PLC0415 - torch takes a second
    from orchestrator.evaluations.targets import find  # noqa: PLC0415

    terminal: Terminal = context.obj
    recipe = find(target).recipe
    radius = None if eps is None else parse_override(f"eps={eps}")[1]
    wanted = {"norm": norm, "eps": radius, "examples": examples}
    given = checked(recipe.evaluation, {key: value for key, value in wanted.items() if value is not None})
    workers = checked(recipe.workers, {} if attackers is None else {"attackers": attackers})
    with terminal.progress() as listener:
        diagnosis = diagnose(
            target,
            budget=budget,
            norm=given.norm,
            eps=given.eps,
            examples=None if examples is None else given.examples,
            workers=workers,
            listener=listener,
        )
    terminal.show(screen(diagnosis))
    terminal.say(diagnosis.verdict)
    terminal.say(f"page  {nearby(diagnosis.page)}")
    terminal.result(diagnosis.plain())
