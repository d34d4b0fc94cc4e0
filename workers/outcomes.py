"""What calls to Ray's actors have left behind: reports, or errors that say who is to blame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray import exceptions

# The worker is at fault.
LOST = (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.GetTimeoutError, exceptions.RaySystemError)


def outcomes(references: Sequence[Any], seconds: float) -> list[Any]:
    """The report of each call that has ended, or the error that it ended with; in one go if there is no error."""
    try:
        return list(ray.get(list(references), timeout=seconds))
    except exceptions.RayError:
        return [outcome(reference, seconds) for reference in references]


def outcome(reference: Any, seconds: float) -> Any:
    """The report of a call, or the error that it ended with."""
    try:
        return ray.get(reference, timeout=seconds)
    except exceptions.RayError as error:
        return error
