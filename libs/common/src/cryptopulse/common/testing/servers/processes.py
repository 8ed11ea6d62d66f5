"""What the operating system knows of a process: its command line, its start, and whether it is still the same one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_STATE, _STARTED = 0, 19  # fields 3 and 22 of /proc/<pid>/stat, counted after the command's closing bracket


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that can be told from a later one with the same pid: `started` is unique per machine and boot."""

    pid: int
    started: str


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _ps(pid: int, column: str) -> str:
    answer = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    return answer.stdout.strip()


def identity_of(pid: int) -> Identity | None:
    """The identity of a living process; None when there is none, a zombie counting as gone."""
    if sys.platform != "linux":
        started = _ps(pid, "lstart")
        return Identity(pid, started) if started else None
    fields = _stat_fields(pid)
    if fields is None or fields[_STATE] in {"Z", "X"}:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Identity(pid, f"{boot}:{fields[_STARTED]}")


def command_of(pid: int) -> str:
    """The command line of a process, for a person to read; empty when it is gone or closed to us."""
    if sys.platform != "linux":
        return _ps(pid, "command")
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return " ".join(raw.replace(b"\0", b" ").decode("utf-8", "replace").split())
