"""`ray job submit` for real: a head of its own, with tokens, and the recipe that the README submits."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from orchestrator.folders import RunFolder
from tests.cluster.conftest import ray_processes

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.ray, pytest.mark.timeout(1000)]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that Ray gives to workers."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for number, open_socket in enumerate(sockets):
            for port in range(21000 + 500 * number, 21500 + 500 * number):
                try:
                    open_socket.bind(("127.0.0.1", port))
                except OSError:
                    continue
                break
        return [open_socket.getsockname()[1] for open_socket in sockets]


@contextmanager
def head(environment: dict[str, str]) -> Iterator[str]:
    """A Ray head in a folder of its own; yields the address that jobs are submitted to."""
    folder = tempfile.mkdtemp(prefix="head", dir="/tmp")
    port, dashboard, agent, client = free_ports(4)
    command = [BIN / "ray", "start", "--head", "--block", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}", "--num-cpus=4"]
    command += ["--object-store-memory=150000000", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1"]
    with (Path(folder) / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            for left in ray_processes(folder):
                left.kill()
            shutil.rmtree(folder, ignore_errors=True)


def run_here(command: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in the repository to its end."""
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


def test_the_readmes_job_trains_on_the_cluster(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = own | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    overrides = ["train.epochs=1", "evaluation.examples=32", f"tracking.folder={tmp_path}", "workers.attackers=2"]
    with head(environment) as address:
        submit = [BIN / "ray", "job", "submit", f"--address={address}", f"--working-dir={ROOT}", "--"]
        submit += ["sparring", "train", "recipes/digits-pgd.toml", *overrides]
        for _ in range(30):  # the head takes a few seconds to listen
            job = run_here(submit, environment)
            if "Failed to connect" not in job.stdout + job.stderr and "Connection refused" not in job.stderr:
                break
    assert job.returncode == 0, job.stdout + job.stderr
    (run,) = tmp_path.glob("digits-pgd-*")
    assert json.loads(RunFolder(run).summary.read_text())
