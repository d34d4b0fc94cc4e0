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
    try:
        where = host_and_port(address)
    except ValueError:
        raise ValueError(
            f"{source}: {address!r} is no address of a Ray cluster; HOST:PORT, as `ray start --head` prints it, or"
            f" {HERE} on a machine that belongs to one. From any other machine: `ray job submit`"
        ) from None
    try:
        socket.create_connection(where, timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"{source}: nobody answers at {address} ({error}). Is the cluster up (`ray status` on its head), and may"
            " this machine reach it? Without an address a run starts a local cluster of its own"
        ) from None


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT; an IPv6 host has brackets. Raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host:
        raise ValueError(f"{address!r} is no HOST:PORT")
    return host.strip("[]"), int(port)
