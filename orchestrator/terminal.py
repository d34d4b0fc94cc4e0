"""How a command speaks: results on stdout, progress and errors on stderr, and exit codes that mean something."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

import typer

from orchestrator.listener import Listener, Silent

if TYPE_CHECKING:
    from rich.table import Table

BUGS = (TypeError, LookupError, AttributeError, NameError, AssertionError, ImportError)
FAILED, WRONG, STOPPED, ABORTED = 1, 2, 3, 130

EXIT_CODES = (
    "Exit codes: 0 done; 1 the work failed (a fault, NaN, a full disk); 2 wrong usage or a wrong recipe; "
    "3 stopped on request with a checkpoint, the same command goes on; 130 stopped at once."
)


@final
class Terminal:
    """What a command writes to. With `as_json` stdout gets exactly one JSON object; `quiet` shows no progress."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.as_json, self.quiet, self.debug = as_json, quiet, debug
        self.stdout = sys.stdout
        self.redirected: AbstractContextManager[Any] = contextlib.nullcontext()

    def say(self, line: str) -> None:
        """A line of a result for a person."""
        if not self.as_json:
            typer.echo(line)

    def show(self, table: Table) -> None:
        """A table for a person."""
        if not self.as_json:
            typer.echo(as_text(table), nl=False)

    def result(self, value: dict[str, Any]) -> None:
        """The result for a program."""
        if self.as_json:
            typer.echo(json.dumps(value, indent=2, allow_nan=False), file=self.stdout)

    @contextmanager
    def progress(self) -> Iterator[Listener]:
        """A listener that shows progress on stderr: bars on a terminal, a line every some seconds elsewhere."""
        if self.quiet:
            yield Silent()
            return
        from orchestrator import progress  # noqa: PLC0415 - Rich is imported only where something is shown

        with progress.listening(sys.stderr) as listener:
            yield listener

    def __enter__(self) -> Terminal:
        """While a command runs, what libraries print does not get between a program and its JSON."""
        self.redirected = contextlib.redirect_stdout(sys.stderr) if self.as_json else contextlib.nullcontext()
        self.redirected.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turns an error into one line and an exit code; with `debug` errors keep their traceback."""
        self.redirected.__exit__(kind, error, trace)
        if error is None or isinstance(error, typer.Exit | SystemExit | typer.Abort) or self.debug:
            return
        code = exit_code(error)
        message = one_line(error)
        if self.as_json:
            typer.echo(json.dumps({"error": message, "exit_code": code}), file=self.stdout)
        typer.secho(message, fg=typer.colors.RED, err=True)
        raise typer.Exit(code)


def exit_code(error: BaseException) -> int:
    """What the command ends with."""
    if type(error).__name__ == "Interrupted":  # of the loop, which is not imported for a name
        return STOPPED
    if isinstance(error, KeyboardInterrupt):
        return ABORTED
    return WRONG if isinstance(error, ValueError | FileNotFoundError) else FAILED


def one_line(error: BaseException) -> str:
    """An error in one line, with the remedy where there is one that fits them all."""
    said = " ".join(str(error).split("\n\n")[-1].split()) or type(error).__name__
    code = exit_code(error)
    if code == ABORTED:
        return "stopped at once; the same command goes on from the newest checkpoint"
    if code == STOPPED:
        return f"{said}, with a checkpoint; the same command goes on from there"
    return f"a bug: {type(error).__name__}: {said}; --debug shows where" if isinstance(error, BUGS) else said


def as_text(table: Table) -> str:
    """A table as wide as the terminal, or as it needs to be where there is none."""
    from rich.console import Console  # noqa: PLC0415 - Rich is imported only where something is shown

    console = Console(
        file=io.StringIO(), width=None if sys.stdout.isatty() else 200, force_terminal=sys.stdout.isatty()
    )
    with console.capture() as captured:
        console.print(table)
    return captured.get()
