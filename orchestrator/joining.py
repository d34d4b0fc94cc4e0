"""The address of a Ray cluster, checked before Ray tries it, which takes many minutes over a wrong one in silence."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from orchestrator.recipe import Workers

VARIABLE = "RAY_ADDRESS"
PATIENCE = 10.0  # seconds for a connection
HERE = "auto"  # the cluster that this machine belongs to


class Wanted(NamedTuple):
    """The address of a cluster to join, and who gave it. Empty: a local cluster of the run's own."""

    address: str
    source: str


def wanted(workers: Workers) -> Wanted:
    """The recipe's, else the environment's."""
    if workers.address:
        return Wanted(workers.address, "workers.address")
    return Wanted(os.environ.get(VARIABLE, ""), VARIABLE)


def check(cluster: Wanted) -> None:
    """Raises ValueError for an address that cannot be one, or where nobody answers."""
    address, source = cluster
    if address in ("", HERE):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ValueError(
            f"{source}: {address!r} is no address of a Ray cluster; HOST:PORT, as `ray start --head` prints it, or"
            f" {HERE} on a machine that belongs to one. From any other machine: `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"{source}: nobody answers at {address} ({error}). Is the cluster up (`ray status` on its head), and may"
            " this machine reach it? Without an address a run starts a local cluster of its own"
        ) from None
