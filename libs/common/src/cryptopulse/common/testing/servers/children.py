"""Child processes that do not outlive their parent, however it ends.

On Linux the kernel signals each child when the parent dies (PR_SET_PDEATHSIG, set after setuid, which clears it). It
follows the *thread* that forked: children are started from the main thread. Everywhere, a pid file tells the next
start what an earlier one left behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cryptopulse.common.testing.servers.processes import Identity, command_of, identity_of

_PR_SET_PDEATHSIG = 1
_ORPHANED = 70  # exit code of a child whose parent died between fork and prctl
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_POLL_SECONDS = 0.02
_STALE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a child runs as, when it is not ours."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def die_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: what a child does between fork and exec to get a signal when its parent ends."""

    def prepare() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(_ORPHANED)

    return prepare


def die_with_parent(death_signal: signal.Signals) -> None:
    """Let this very process get a signal when the one that started it ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


class Child:
    """A running child process with the signal that stops it in good order."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], *, stop_signal: signal.Signals, pid_file: Path
    ) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._stop_signal = stop_signal
        self._pid_file = pid_file

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.poll()

    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self.exit_code is None

    def ask_to_stop(self) -> None:
        """Send the stop signal; return at once."""
        self.signal(self._stop_signal)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is alive."""
        if self.is_running():
            self._process.send_signal(number)

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the end; True when it came in time."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        self._pid_file.unlink(missing_ok=True)
        return True

    def terminate(self) -> None:
        """End it and everything in its session that is still there; waits until it is gone."""
        if self.is_running():
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self._process.kill()
        self.join(10.0)

    def stop(self, timeout_seconds: float) -> bool:
        """Ask, wait, then end it by force; True when asking was enough."""
        self.ask_to_stop()
        in_time = self.join(timeout_seconds)
        if not in_time:
            self.terminate()
        return in_time


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    pid_folder: Path,
    cwd: Path,
    env: Mapping[str, str],
    log: Path | IO[bytes],
    stop_signal: signal.Signals = signal.SIGTERM,
    death_signal: signal.Signals | None = None,
    account: Account | None = None,
) -> Child:
    """Start a child in a session of its own, so that Ctrl-C reaches only us and we stop it in order.

    Its output is appended to `log`. `death_signal` (default `stop_signal`) is what the kernel sends when we die.
    """
    pid_folder.mkdir(parents=True, exist_ok=True)
    stream: IO[bytes] = log.open("ab") if isinstance(log, Path) else log
    prepare = die_with(os.getpid(), death_signal or stop_signal)
    arguments = [str(part) for part in command]
    common = {"cwd": cwd, "env": dict(env), "start_new_session": True, "preexec_fn": prepare}
    try:
        if account is None:
            process = subprocess.Popen(  # type: ignore[call-overload]  # keyword arguments come from a dict
                arguments, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, **common
            )
        else:
            process = subprocess.Popen(  # type: ignore[call-overload]  # keyword arguments come from a dict
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                user=account.uid,
                group=account.gid,
                extra_groups=list(account.groups),
                **common,
            )
    finally:
        if isinstance(log, Path):
            stream.close()
    pid_file = pid_folder / f"{name}.json"
    _write_pid_file(pid_file, process.pid)
    return Child(name, process, stop_signal=stop_signal, pid_file=pid_file)


def _write_pid_file(path: Path, pid: int) -> None:
    identity = identity_of(pid)
    started = identity.started if identity else ""
    path.write_text(json.dumps({"pid": pid, "started": started}), encoding="utf-8")


def _read_pid_file(path: Path) -> Identity | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Identity(int(record["pid"]), str(record["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stop_stale(pid_folder: Path, say: Callable[[str], None]) -> None:
    """Stop what an earlier parent left behind in this folder.

    Only a process that is the very one the pid file was written for is touched: a pid that was given to another
    program since has another start time. One that is already on its way out gets its time.
    """
    for path in sorted(pid_folder.glob("*.json")):
        known = _read_pid_file(path)
        if known is not None and identity_of(known.pid) == known:
            say(f"{path.stem}: stopping an earlier instance (pid {known.pid}: {command_of(known.pid)[:80]})")
            _stop_foreign(known)
        path.unlink(missing_ok=True)


def _stop_foreign(known: Identity) -> None:
    # SIGINT is postgres' fast shutdown; a second after it SIGTERM is right for all the others.
    for number, patience in (
        (signal.SIGINT, 1.0),
        (signal.SIGTERM, _STALE_SECONDS),
        (signal.SIGKILL, _STALE_SECONDS),
    ):
        try:
            os.kill(known.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if identity_of(known.pid) != known:
                return
            time.sleep(_POLL_SECONDS)
