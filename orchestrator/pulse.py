"""Whether Ray's control process lives, on the head of the cluster. Without it calls go on for a minute; then Ray ends
every process of the cluster, the driver too, with no exception. So a run stops before that, with a checkpoint.

A cluster whose control process is started again, with what it knew (Ray's fault tolerance of the GCS), goes on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import final

from orchestrator.joining import host_and_port
from orchestrator.listener import Listener

EVERY = 1.0  # seconds between two beats; also how long one is waited for
SOON = 3.0  # seconds without one, after which it is said
GONE = 20.0  # seconds without one, after which the run stops; Ray itself gives up after 60


@final
class Pulse:
    """Feels it from a thread, and says what it finds."""

    def __init__(self, address: str, listener: Listener) -> None:
        """`address`: of the control process, host and port."""
        self.address, self.where = address, host_and_port(address)
        self.listener = listener
        self.last = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._feel, name="pulse", daemon=True)
        self._thread.start()

    def trouble(self) -> str:
        """Why the run cannot go on for long; empty where it can."""
        silent = time.monotonic() - self.last
        if silent < GONE:
            return ""
        return f"Ray's control process at {self.address} is gone ({silent:.0f} s without an answer)"

    def stop(self) -> None:
        """Feels no more."""
        self._over.set()
        self._thread.join(2 * EVERY)

    def _feel(self) -> None:
        said = False
        while not self._over.wait(EVERY):
            if beats(self.where):
                self.last = time.monotonic()
                if said:
                    self.listener.say(f"Ray's control process at {self.address} is back")
                said = False
            elif not said and time.monotonic() - self.last > SOON:
                said = True
                self.listener.say(
                    f"Ray's control process at {self.address} does not answer; if it is not back in {GONE:.0f} s, the"
                    " run stops. Start the cluster again and give the same command: it goes on from the last step"
                )


def beats(where: tuple[str, int]) -> bool:
    """Whether somebody listens at this address."""
    with contextlib.suppress(OSError), socket.create_connection(where, timeout=EVERY):
        return True
    return False
