"""The orchestrator: recipes, the training loop, tracking, evaluation, reports and the command line.

`from orchestrator import Recipe, train, evaluate, diagnose` is what most Python users need. Each is imported when it is
asked for, so that `import orchestrator` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.diagnosis import diagnose
    from orchestrator.evaluation import evaluate
    from orchestrator.recipe import Recipe
    from orchestrator.run import train

__all__ = ["Recipe", "diagnose", "evaluate", "train"]

_HOMES = {"Recipe": "recipe", "diagnose": "diagnosis", "evaluate": "evaluation", "train": "run"}


def __getattr__(name: str) -> Any:
    """The objects of `__all__`, at their first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"orchestrator.{_HOMES[name]}"), name)
