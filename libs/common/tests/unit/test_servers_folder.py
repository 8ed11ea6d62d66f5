"""One stack per folder, and who may enter it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryptopulse.common.testing.servers.faults import FolderInUseError
from cryptopulse.common.testing.servers.folder import FolderLock
from cryptopulse.common.testing.servers.processes import command_of, identity_of
from cryptopulse.common.testing.servers.server import write_private

HOLD = """
import sys, time
from pathlib import Path
from cryptopulse.common.testing.servers.folder import FolderLock
lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print("held", flush=True); time.sleep(30)
"""


def test_a_second_stack_in_a_folder_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            with pytest.raises(FolderInUseError, match=rf"pid {holder.pid}.*RUN_DIR"):
                FolderLock(tmp_path).acquire()
        finally:
            holder.kill()
    lock = FolderLock(tmp_path)  # the kernel gave it back
    lock.acquire()
    lock.release()


def test_a_folder_can_be_taken_again_after_release(tmp_path: Path) -> None:
    for _ in range(2):
        lock = FolderLock(tmp_path)
        lock.acquire()
        lock.release()


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_process_is_told_from_a_later_one_with_its_pid() -> None:
    first = identity_of(os.getpid())
    assert first is not None
    assert first == identity_of(os.getpid())
    with subprocess.Popen(["sleep", "30"]) as other:
        second = identity_of(other.pid)
        assert second is not None
        assert second.started != first.started
        other.kill()
    assert identity_of(other.pid) is None
    assert command_of(other.pid) == ""
    assert "python" in command_of(os.getpid())
