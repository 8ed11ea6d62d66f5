"""Children never outlive their parent, and what an earlier parent left is found and stopped, nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cryptopulse.common.testing.servers.children import Child, spawn, stop_stale
from cryptopulse.common.testing.servers.processes import identity_of

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = """
import os, signal, sys, time
from pathlib import Path
from cryptopulse.common.testing.servers.children import spawn
folder = Path(sys.argv[1])
child = spawn("child", ["sleep", "60"], pid_folder=folder, cwd=folder, env=dict(os.environ), log=folder / "log")
print(child.pid, flush=True)
time.sleep(60)
"""


def a_child(folder: Path, *command: str, name: str = "child") -> Child:
    return spawn(
        name, command, pid_folder=folder / "pids", cwd=folder, env=dict(os.environ), log=folder / "log"
    )


def wait_until_gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if identity_of(pid) is None:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of a dead parent")
def test_a_child_goes_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert identity_of(pid) is not None
        parent.send_signal(number)
    assert wait_until_gone(pid)


def test_a_child_that_ignores_its_signal_is_ended_by_force(tmp_path: Path) -> None:
    child = a_child(tmp_path, sys.executable, "-c", STUBBORN)
    while "up" not in (tmp_path / "log").read_text():
        time.sleep(0.02)
    assert child.stop(0.3) is False
    assert child.exit_code == -signal.SIGKILL
    assert list((tmp_path / "pids").iterdir()) == []


def test_the_grandchildren_of_a_child_that_is_ended_by_force_go_too(tmp_path: Path) -> None:
    child = a_child(tmp_path, "sh", "-c", "sleep 61 & echo $!; wait")
    while not (text := (tmp_path / "log").read_text().strip()):
        time.sleep(0.02)
    child.terminate()
    assert wait_until_gone(int(text))


def test_what_an_earlier_parent_left_is_stopped(tmp_path: Path) -> None:
    child = a_child(tmp_path, "sleep", "60")
    told: list[str] = []
    stop_stale(tmp_path / "pids", told.append)
    assert child.join(5.0)
    assert len(told) == 1
    assert str(child.pid) in told[0]


def test_a_pid_that_another_program_got_since_is_left_alone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record = {"pid": stranger.pid, "started": "an earlier boot:1"}
        (pids / "redis.json").write_text(json.dumps(record))
        (pids / "torn.json").write_text('{"pid": 1')
        told: list[str] = []
        stop_stale(pids, told.append)
        assert told == []
        assert stranger.poll() is None
        assert list(pids.iterdir()) == []
        stranger.kill()
