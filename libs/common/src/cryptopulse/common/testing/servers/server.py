"""What the three servers have in common as our children: a folder, ports, a secret, a log, readiness and an end."""

from __future__ import annotations

import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptopulse.common.testing.servers.children import Child

USER = "cryptopulse"
DATABASE = "cryptopulse"
_LOG_TAIL_LINES = 8
_LOG_TAIL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Profile:
    """What a stack is for.

    `durable`: data survive a crash of the machine, and passwords are asked for; else speed comes first.
    `management`: RabbitMQ's HTTP API is on, with which tests make vhosts of their own.
    """

    durable: bool
    management: bool


FOR_RUN = Profile(durable=True, management=False)
FOR_TESTS = Profile(durable=False, management=True)


class LocalServer(ABC):
    """One server as child processes of ours. Not thread-safe; `launch` belongs in the main thread."""

    name: str
    stop_seconds: float = 10.0

    def __init__(self, folder: Path, profile: Profile, environ: Mapping[str, str]) -> None:
        self.folder = folder / self.name
        self.profile = profile
        self.notes: list[str] = []
        self.children: list[Child] = []
        self._pid_folder = folder / "pids"
        self._log = folder / "log" / f"{self.name}.log"
        self._environ = {key: value for key, value in environ.items() if not self._is_ours(key)}

    @staticmethod
    def _is_ours(key: str) -> bool:
        """Whether an inherited variable would change a server behind our back."""
        return key.startswith(("RABBITMQ_", "ERL_", "PG", "REDIS_"))

    @abstractmethod
    def choose_ports(self) -> None:
        """Take free ports; before the first launch, and again when a launch failed."""

    @abstractmethod
    def launch(self) -> None:
        """Start the children and return at once; what is not there yet is laid out first."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it does its work, asked in its own protocol."""

    @abstractmethod
    def urls(self) -> dict[str, str]:
        """The environment variables that lead to it."""

    def prepare_folders(self) -> None:
        """Make the folders that every server needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the data of earlier starts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_running(self) -> bool:
        """Whether every process of it is alive."""
        return bool(self.children) and all(child.is_running() for child in self.children)

    def log_tail(self) -> str:
        """The last lines that it wrote, for the message that tells of its failure."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        written = [f"    {line}" for line in lines if line.strip()]
        return "\n".join(written[-_LOG_TAIL_LINES:])

    def ask_to_stop(self) -> None:
        """Send the main process its stop signal; return at once."""
        if self.children:
            self.children[-1].ask_to_stop()

    def join(self) -> None:
        """Wait for the end of all processes, the main one first, by force if need be."""
        for child in reversed(self.children):
            child.stop(self.stop_seconds)
        self.children = []

    def secret_folder(self) -> Path:
        """Where the password lies: beside the data, so that they are kept and lost together."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def secret(self) -> str:
        """The password of this stack's server, made once and kept beside its data."""
        path = self.secret_folder() / "password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text(encoding="ascii").strip()


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, never readable by others even for a moment."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
