"""Command `sparring`. A file in `orchestrator/commands/` is a command: its `run` does it, its docstring is the help.

Nothing heavy is imported before a command needs it, so that `sparring --help` answers at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from orchestrator import commands
from orchestrator.terminal import EXIT_CODES, Terminal

app = typer.Typer(
    name="sparring",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)


shared = typer.Typer(add_completion=False)


@shared.command()
def options(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Errors with their traceback.")] = False,
) -> Terminal:
    """What every command understands."""
    return Terminal(as_json=as_json, quiet=quiet, debug=debug)


OPTIONS = typer.main.get_command(shared).params


class Command(TyperCommand):
    """A command with the options that all of them have; what it writes to is the context's `obj`, a Terminal."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own options, the shared ones, and --help."""
        own = super().get_params(ctx)
        return [*own[:-1], *OPTIONS, own[-1]]

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; an error ends it with one line and an exit code."""
        as_json, quiet, debug = (bool(ctx.params.pop(option.name)) for option in OPTIONS)
        ctx.obj = options(as_json, quiet, debug)
        with ctx.obj:
            return super().invoke(ctx)


def show_version(wanted: bool) -> None:
    """Prints the version and ends."""
    if wanted:
        typer.echo(f"sparring {metadata.version('sparring')}")
        raise typer.Exit


@app.callback()
def sparring(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="The version, and no more.")
    ] = False,
) -> None:
    """Trains image classifiers that withstand adversarial examples, and measures how far they do."""


for module in pkgutil.iter_modules(commands.__path__):
    if not module.name.startswith("_"):
        run = importlib.import_module(f"{commands.__name__}.{module.name}").run
        app.command(module.name, cls=Command, epilog=EXIT_CODES)(run)


def main() -> None:
    """Runs the command that was typed."""
    app()
