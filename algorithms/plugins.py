"""A folder is a registry: each file beside an interface holds one plug-in, named after its file.

`find(Attack, "pgd")` imports `algorithms/attacks/pgd.py` and returns the one class in it that implements `Attack`.
There is no list to edit; a new file is found by the command line, the documentation and the contract tests.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from typing import Any, TypeVar

Interface = TypeVar("Interface")


def names(interface: type[Any]) -> list[str]:
    """The plug-ins of an interface, in alphabetical order; nothing is imported but the interface's own package."""
    package = importlib.import_module(interface.__module__)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def find(interface: type[Interface], name: str) -> type[Interface]:
    """The class of plug-in `name`. Raises ValueError, with the nearest names, if there is none."""
    known = names(interface)
    if name not in known:
        raise ValueError(unknown(name, known, kind_of(interface)))
    module = importlib.import_module(f"{interface.__module__}.{name}")
    return plugin_in(module, interface)


def plugin_in(module: Any, interface: type[Interface]) -> type[Interface]:
    """The one class that `module` itself defines and that implements `interface`."""
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, interface) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        found = ", ".join(c.__name__ for c in classes) or "none"
        raise TypeError(f"{module.__name__} must define exactly one {interface.__name__}; found {found}")
    return classes[0]


def name_of(plugin: object) -> str:
    """The name of a plug-in's file, for a plug-in's value or its class."""
    owner = plugin if inspect.isclass(plugin) else type(plugin)
    return owner.__module__.rpartition(".")[2]


def kind_of(interface: type[Any]) -> str:
    """What a user calls an implementation of the interface: `attack`, `defense`, ..."""
    return interface.__name__.lower()


def unknown(name: str, known: list[str], kind: str) -> str:
    """The sentence that a user gets for a name that does not exist."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no {kind} is called {name!r}; {hint}there are: {', '.join(known)}"
