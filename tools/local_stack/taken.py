"""Who holds a port: so that 'address in use' names the program and the way out."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptopulse.common.testing.servers.processes import command_of

_LISTENING = "0A"


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port; pid 0 when it is not ours to see."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid}: {self.command[:120]}" if self.pid else "a process of another user"


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True


def holder_of(port: int) -> Holder:
    """Who listens on `port` of this machine."""
    pid = _by_proc(port) if sys.platform == "linux" else _by_lsof(port)
    return Holder(pid, command_of(pid) if pid else "")


def _by_proc(port: int) -> int:
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(str(entry.readlink()) in inodes for entry in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            continue
    return 0


def _by_lsof(port: int) -> int:
    try:
        found = subprocess.run(
            ["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except OSError:
        return 0
    first = found.stdout.split()[:1]
    return int(first[0]) if first else 0
