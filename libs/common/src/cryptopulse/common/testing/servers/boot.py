"""Boots what was chosen, the three at once, and hands out the URLs that lead to them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptopulse.common.testing.servers.children import stop_stale
from cryptopulse.common.testing.servers.choose import Choice, Kind, advice
from cryptopulse.common.testing.servers.docker import IMAGES, ContainerServer
from cryptopulse.common.testing.servers.faults import ServerFailedError, StackError
from cryptopulse.common.testing.servers.folder import FolderLock
from cryptopulse.common.testing.servers.postgres import PostgresServer
from cryptopulse.common.testing.servers.rabbitmq import RabbitServer
from cryptopulse.common.testing.servers.redis import RedisServer
from cryptopulse.common.testing.servers.server import LocalServer, Profile

_KINDS: Mapping[str, type[LocalServer]] = {
    "rabbitmq": RabbitServer,
    "redis": RedisServer,
    "postgres": PostgresServer,
}
_READY_SECONDS = 90.0
_ATTEMPTS = 3  # a free port may be taken between looking and listening
_POLL_SECONDS = 0.05

Say = Callable[[str], None]


class Servers:
    """The servers of one folder. `start` and `stop` belong in the main thread; both may be called again."""

    def __init__(
        self,
        folder: Path,
        choices: list[Choice],
        profile: Profile,
        *,
        environ: Mapping[str, str],
        say: Say,
    ) -> None:
        self.folder = folder.resolve()
        self._choices = choices
        self._profile = profile
        self._environ = environ
        self._say = say
        self._lock = FolderLock(self.folder)
        self._local: list[LocalServer] = []
        self._containers: list[ContainerServer] = []

    def start(self, *, fresh: bool = False) -> dict[str, str]:
        """Boot everything and wait until it does its work; the environment variables that lead there.

        What is given by its URL is passed on as it is. `fresh` begins without the data of an earlier start.
        On any failure what was started is stopped again.
        """
        unusable = [choice for choice in self._choices if not choice.is_usable]
        if unusable:
            raise StackError(advice(self._choices))
        self._lock.acquire()
        try:
            return self._start(fresh=fresh)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, all at once, and give the folder back."""
        for server in self._local:
            server.ask_to_stop()
        for server in self._local:
            server.join()
        self._local = []
        for container in self._containers:
            container.stop()
        self._containers = []
        self._lock.release()

    def forget(self) -> None:
        """Remove the folder with all data, and data that lie elsewhere for it. Refused while a stack runs in it."""
        self._lock.acquire()
        try:
            stop_stale(self.folder / "pids", self._say)
            for kind in _KINDS.values():
                kind(self.folder, self._profile, self._environ).forget()
            shutil.rmtree(self.folder)
        finally:
            self._lock.release()

    def restart_dead(self) -> list[str]:
        """Start again, on the same data and ports, each local server that ended; their names."""
        dead = [server for server in self._local if not server.is_running()]
        for server in dead:
            server.join()
            server.launch()
        return [server.name for server in dead]

    def _start(self, *, fresh: bool) -> dict[str, str]:
        stop_stale(self.folder / "pids", self._say)
        urls = {name: value for name, value in self._environ.items() if name in _PASSED_ON and value}
        for choice in self._choices:
            if choice.kind is Kind.LOCAL:
                kind = _KINDS[choice.backend.name]
                self._local.append(kind(self.folder, self._profile, self._environ))
        for server in self._local:
            if fresh:
                server.forget()
            server.choose_ports()
            server.launch()
            for note in server.notes:
                self._say(note)
        for choice in self._choices:
            if choice.kind is Kind.DOCKER:
                container = ContainerServer(choice.backend.name, IMAGES[choice.backend.name])
                self._containers.append(container)
                urls |= container.start()
        for server in self._local:
            self._wait(server)
            urls |= server.urls()
        return urls

    def _wait(self, server: LocalServer) -> None:
        attempt = 1
        deadline = time.monotonic() + _READY_SECONDS
        while not server.is_ready():
            if not server.is_running():
                if attempt == _ATTEMPTS:
                    raise ServerFailedError(f"{server.name} ended while it started:\n{server.log_tail()}")
                attempt += 1
                self._say(f"{server.name} ended while it started; another try on other ports")
                server.join()
                server.choose_ports()
                server.launch()
            elif time.monotonic() > deadline:
                raise ServerFailedError(
                    f"{server.name} was not ready in {_READY_SECONDS:.0f} s:\n{server.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)


_PASSED_ON = ("RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL", "REDIS_URL", "DATABASE_URL")
