"""The folder of a local Ray cluster: it goes with the run, and a killed run's goes with the next one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from orchestrator.cluster import own_folder

HOLDING = """
import sys, time
from pathlib import Path
from orchestrator.cluster import own_folder
with own_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_killed_runs_folder_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    killed, living = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    assert killed.stdout
    assert living.stdout
    left, held = (Path(stream.readline().strip()) for stream in (killed.stdout, living.stdout))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (tmp_path / "sparring-of-somebody-else").mkdir()
    assert left.is_dir()
    with own_folder(tmp_path) as mine:
        assert len(Path(mine).name) < 20
        assert not left.exists()
        assert held.is_dir()
        assert (tmp_path / "sparring-of-somebody-else").is_dir()
    assert not Path(mine).exists()
    living.kill()
    living.communicate()
    killed.communicate()
