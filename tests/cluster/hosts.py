"""Hosts on one machine: namespaces of their own for network, processes, mounts and shared memory, on one bridge.

Needs root and iproute2. Nothing outside the namespaces is changed but the bridge, which goes with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BRIDGE = "sparbr"
NETWORK = "10.77.31"


class Host:
    """One of them. What runs there ends with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name, self.cable = f"sparring{number}", f"sparv{number}"
        self.address = f"{NETWORK}.{10 + number}"

    def start(self) -> None:
        """A network interface on the bridge, and a first process in namespaces of its own."""
        run(f"ip netns add {self.name}")
        run(f"ip link add {self.cable} type veth peer name eth0 netns {self.name}")
        run(f"ip link set {self.cable} master {BRIDGE} up")
        run(f"ip -n {self.name} addr add {self.address}/24 dev eth0")
        for interface in ("eth0", "lo"):
            run(f"ip -n {self.name} link set {interface} up")
        run(f"ip -n {self.name} route add default via {NETWORK}.1")
        private = "mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /tmp/ray && exec sleep infinity"
        isolated = "unshare --pid --fork --mount --ipc --uts --kill-child=SIGKILL --mount-proc"
        command = ["ip", "netns", "exec", self.name, *isolated.split(), "sh", "-c", private]
        self.unshare = subprocess.Popen(command, start_new_session=True)
        children = Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children")
        deadline = time.monotonic() + 20
        while not (found := children.read_text().split()) or mounts(found[0]) < 2:
            assert time.monotonic() < deadline
            assert self.unshare.poll() is None
            time.sleep(0.02)
        self.init = found[0]

    def inside(self, command: Sequence[str | Path], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Runs a command on this host, in the current folder."""
        enter = f"nsenter --target {self.init} --net --pid --mount --ipc --uts --wd={Path.cwd()}".split()
        with log.open("ab") as file:
            return subprocess.Popen([*enter, *map(str, command)], env=environment, stdout=file, stderr=file)

    def cut_off(self) -> None:
        """Pulls the cable: packets vanish, and nobody is told."""
        run(f"ip link set {self.cable} down")

    def connect(self) -> None:
        """Puts the cable back."""
        run(f"ip link set {self.cable} up")

    def end(self) -> None:
        """Ends all that runs there, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.unshare.pid, signal.SIGKILL)
        self.unshare.wait()


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts that see one another."""
    Path("/tmp/ray").mkdir(exist_ok=True)  # to be hidden by each host's own
    made = [Host(number) for number in range(count)]
    try:
        run(f"ip link add {BRIDGE} type bridge")
        run(f"ip addr add {NETWORK}.1/24 dev {BRIDGE}")
        run(f"ip link set {BRIDGE} up")
        for host in made:
            host.start()
        yield made
    finally:
        for host in made:
            if hasattr(host, "unshare"):
                host.end()
            run(f"ip link del {host.cable}", check=False)
            run(f"ip netns del {host.name}", check=False)
        run(f"ip link del {BRIDGE}", check=False)


def permitted() -> bool:
    """Whether this process may make namespaces and network interfaces."""
    if os.geteuid() or not all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter")):
        return False
    made = run("ip netns add sparprobe", check=False) == 0
    linked = made and run("ip link add sparpv type veth peer name eth0 netns sparprobe", check=False) == 0
    mounted = run("unshare --pid --fork --mount --ipc --mount-proc true", check=False) == 0
    for command in ("ip link del sparpv", "ip netns del sparprobe"):
        run(command, check=False)
    return made and linked and mounted


def run(command: str, *, check: bool = True) -> int:
    """Runs a command quietly; returns its exit code."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.returncode


def mounts(process: str) -> int:
    """How many of the private file systems a process sees."""
    try:
        lines = Path(f"/proc/{process}/mounts").read_text().splitlines()
    except OSError:
        return 0
    return sum(line.startswith(("tmpfs /dev/shm ", "tmpfs /tmp/ray ")) for line in lines)
