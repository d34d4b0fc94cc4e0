"""Any attack (or defense) as a value small enough to be run hundreds of times by tests that hold for all of them.

`cheap(PGD, "l2")` takes the class's defaults, makes numbers of steps small and radii fit the tests' 6x6 images. What
this rule gets wrong for a plug-in is put right in `OVERRIDES`; what a plug-in does not promise is said in `OTHER_BALL`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from algorithms import plugins
from algorithms.attacks import Attack
from algorithms.balls import Norm

Plugin = TypeVar("Plugin")

SMALL = {  # the largest number of these that a test runs
    "steps": 8,
    "restarts": 2,
    "searches": 3,
    "samples": 8,
    "population": 16,
    "generations": 4,
    "queries": 40,
}
RADIUS: dict[Norm, float] = {"linf": 0.1, "l2": 0.5, "l1": 2.0, "l0": 5.0}  # fools some of the tests' rows, not all

OVERRIDES: dict[str, dict[str, Any]] = {  # fields by plug-in, where the rule does not do
    "adversary_critic": {"hidden": (8, 8), "warmup": 0.0},
}
HIDDEN = {"feature_adversary"}  # plug-ins that follow a hidden layer's gradient: no backward pass meets the logits
OTHER_BALL = {  # plug-ins whose `eps` is not the radius of a ball of their `norm`
    "wasser_attack",
    "wasserstein_frank_wolfe",
    "wasserstein_pgd",
}


def cheap(kind: type[Plugin], norm: Norm | None = None) -> Plugin:
    """`kind` from its defaults, with few steps; in `norm`, where it has a choice."""
    default: Any = kind()
    name = plugins.name_of(kind)
    fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    fields |= {field: min(fields[field], most) for field, most in SMALL.items() if field in fields}
    fields |= {field: cheap(type(value)) for field, value in fields.items() if isinstance(value, Attack)}
    if norm is not None:
        fields["norm"] = norm
    if "eps" in fields and name not in OTHER_BALL:
        fields["eps"] = RADIUS[fields.get("norm", getattr(default, "norm", "linf"))]
        if "step_size" in fields:
            fields["step_size"] = fields["eps"] / 4
    return kind(**(fields | OVERRIDES.get(name, {})))


def norms(kind: type[Attack]) -> list[Norm | None]:
    """The norms that an attack may be asked for; `[None]` where it has its own."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hint = get_type_hints(kind)["norm"]
    return list(get_args(hint)) if "norm" in names and get_origin(hint) is Literal else [None]


def variants() -> dict[str, Attack | Exception]:
    """Every attack plug-in in every norm that it offers, small, by a name for the test's report.

    A file that cannot be imported comes as its error: it fails its own tests and lets the others run.
    """
    found: dict[str, Attack | Exception] = {}
    for name in plugins.names(Attack):
        try:
            kind = plugins.find(Attack, name)
            found |= {f"{name}-{norm}" if norm else name: cheap(kind, norm) for norm in norms(kind)}
        except (ImportError, SyntaxError, NameError, TypeError) as error:
            found[name] = error
    return found


def has(attack: Attack, field: str) -> bool:
    """Whether a user can set `field` of this attack."""
    return field in {each.name for each in dataclasses.fields(attack)}  # type: ignore[arg-type]


def needs_logits(attack: Attack) -> bool:
    """Whether the gradients that the attack follows, if any, are of the logits."""
    return plugins.name_of(attack) not in HIDDEN


def in_its_ball(attack: Attack) -> bool:
    """Whether perturbations are no larger than `attack.eps` in `attack.norm`."""
    return has(attack, "eps") and not attack.minimal and plugins.name_of(attack) not in OTHER_BALL
