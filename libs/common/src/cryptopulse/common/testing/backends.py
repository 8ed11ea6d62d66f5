"""Finds the servers for a test session, and cuts corners of them for single tests: a vhost, a database, a Redis db.

A server given by its URL may hold somebody's data. So a Redis db is taken only when it is empty, a vhost and a
database are made anew under names of their own, and only what was made is removed.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import http.client
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg
import redis

from cryptopulse.common.testing.servers.boot import Servers
from cryptopulse.common.testing.servers.choose import BACKENDS, Choice, advice, choose
from cryptopulse.common.testing.servers.docker import DockerEngine
from cryptopulse.common.testing.servers.faults import StackError
from cryptopulse.common.testing.servers.processes import identity_of
from cryptopulse.common.testing.servers.server import FOR_TESTS

_HTTP_SECONDS = 20
_LEASES = "cryptopulse:test-db"


class Backends:
    """The servers of one test session: each is found or booted when a test first asks for it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._engine = DockerEngine()
        self._say = say
        self._running: list[Servers] = []
        self._urls: dict[str, dict[str, str]] = {}
        self._base: Path | None = None
        self.chosen: dict[str, Choice] = {}

    def urls(self, name: str) -> dict[str, str]:
        """The variables that lead to one backend. Raises `StackError` with advice when it cannot be had."""
        if name not in self._urls:
            self._urls[name] = self._provide(name)
        return self._urls[name]

    def stop(self) -> None:
        """Stop what was booted here and remove its data."""
        for servers in self._running:
            servers.stop()
        self._running = []
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)
            self._base = None

    def _provide(self, name: str) -> dict[str, str]:
        backend = next(one for one in BACKENDS if one.name == name)
        choice = choose(backend, os.environ, self._engine, has_apt=False)
        self.chosen[name] = choice
        if not choice.is_usable:
            raise StackError(advice([choice]))
        servers = Servers(self._folder() / name, [choice], FOR_TESTS, environ=os.environ, say=self._say)
        urls = servers.start()
        self._running.append(servers)
        return urls

    def _folder(self) -> Path:
        if self._base is None:
            self._base = Path(tempfile.mkdtemp(prefix="cryptopulse-tests-"))
            self._base.chmod(0o711)  # Postgres may have to pass through as another user
            atexit.register(shutil.rmtree, self._base, ignore_errors=True)
        return self._base


class VhostMaker:
    """Makes and removes vhosts through RabbitMQ's HTTP API."""

    def __init__(self, amqp_url: str, management_url: str) -> None:
        self._amqp = urlsplit(amqp_url)
        self._management = urlsplit(management_url)
        account = (
            f"{unquote(self._management.username or 'guest')}:{unquote(self._management.password or 'guest')}"
        )
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(account.encode()).decode(),
            "Content-Type": "application/json",
        }

    def make(self) -> str:
        """A new vhost; the AMQP URL of it."""
        name = f"test-{uuid.uuid4().hex}"
        user = quote(unquote(self._amqp.username or "guest"), safe="")
        self._call("PUT", f"/api/vhosts/{name}")
        self._call(
            "PUT",
            f"/api/permissions/{name}/{user}",
            '{"configure":".*","write":".*","read":".*"}',
        )
        return urlunsplit(self._amqp._replace(path=f"/{name}"))

    def remove(self, url: str) -> None:
        """Remove it with all its queues; connections to it are closed by the broker."""
        self._call("DELETE", f"/api/vhosts/{urlsplit(url).path[1:]}")

    def _call(self, method: str, path: str, body: str | None = None) -> None:
        host, port = self._management.hostname or "127.0.0.1", self._management.port or 15672
        connection = http.client.HTTPConnection(host, port, timeout=_HTTP_SECONDS)
        try:
            connection.request(method, path, body=body, headers=self._headers)
            answer = connection.getresponse()
            text = answer.read(300).decode("utf-8", "replace")
        finally:
            connection.close()
        if answer.status >= 300 and not (method == "DELETE" and answer.status == 404):
            raise StackError(f"RabbitMQ's HTTP API refused {method} {path}: {answer.status} {text}")


class RedisDatabases:
    """Lends empty Redis databases, one per test, over all test processes on this machine.

    A lease is a key in db 0 that names its holder; one whose holder is gone is taken over.
    """

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._count = int(self._client.config_get("databases")["databases"] or 16)
        identity = identity_of(os.getpid())
        self._holder = f"{os.getpid()}|{identity.started if identity else ''}"

    def take(self) -> str:
        """The URL of an empty database that nobody else uses."""
        for number in range(1, self._count):
            key = f"{_LEASES}:{number}"
            if self._client.set(key, self._holder, nx=True):
                if self._size(number) == 0:
                    return self._url_of(number)
                self._client.delete(key)  # somebody's data: not ours to touch
            elif self._take_over(key):
                self._flush(number)
                return self._url_of(number)
        raise StackError(
            f"no empty Redis database among {self._count}: start Redis with more (--databases 256)"
        )

    def give_back(self, url: str) -> None:
        """Empty the database and end the lease."""
        number = int(urlsplit(url).path[1:])
        self._flush(number)
        self._client.delete(f"{_LEASES}:{number}")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _take_over(self, key: str) -> bool:
        holder = str(self._client.get(key) or "")
        pid, _, started = holder.partition("|")
        if not pid.isdigit():
            return False
        identity = identity_of(int(pid))
        if identity is not None and identity.started == started:
            return False
        # Compare and set, since two may find the same dead holder.
        script = "if redis.call('get',KEYS[1])==ARGV[1] then redis.call('set',KEYS[1],ARGV[2]) return 1 end return 0"
        return bool(self._client.eval(script, 1, key, holder, self._holder))

    def _url_of(self, number: int) -> str:
        return urlunsplit(self._url._replace(path=f"/{number}"))

    def _size(self, number: int) -> int:
        with redis.Redis.from_url(self._url_of(number)) as client:
            return int(client.dbsize())

    def _flush(self, number: int) -> None:
        with redis.Redis.from_url(self._url_of(number)) as client:
            client.flushdb()


class Databases:
    """Makes and drops Postgres databases of single tests."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def make(self, template: str = "template0") -> str:
        """A fresh database, a copy of `template`; its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return urlunsplit(self._url._replace(path=f"/{name}"))

    def drop(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        self._run(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(urlunsplit(self._url))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        _run_apart(execute())


def _run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end on a thread and loop of its own: callable from inside a test's running loop too."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
