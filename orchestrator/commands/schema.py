"""`sparring schema`: a JSON Schema of recipes, for editors."""

from __future__ import annotations

import json

import typer

from orchestrator.terminal import Terminal


def run(context: typer.Context) -> None:
    """Prints a JSON Schema of recipes, with which an editor completes and checks them."""
    from orchestrator.config import json_schema  # noqa: PLC0415 - torch takes a second

    terminal: Terminal = context.obj
    schema = json_schema()
    terminal.say(json.dumps(schema, indent=2))
    terminal.result(schema)
