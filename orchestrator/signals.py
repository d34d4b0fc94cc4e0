"""Ctrl-C and SIGTERM: once, the run finishes its step, writes a checkpoint and stops; twice, it stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.listener import Listener

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_to_stop(listener: Listener) -> Iterator[Callable[[], bool]]:
    """A function that tells whether the process was asked to stop. Elsewhere than in the main thread it never is."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        listener.say("stopping after this step, with a checkpoint; once more to stop at once")

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
