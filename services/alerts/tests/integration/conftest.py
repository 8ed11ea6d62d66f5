"""The alerts service as a process on real servers, and a receiver of webhooks on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.common.security.identity import InternalSigner

SECRET = "0123456789abcdef0123456789abcdef-test"
MIGRATIONS = Path(__file__).parents[2] / "src/cryptopulse/alerts/migrations"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, seconds: float = 10.0, what: str = "condition"
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if await found if not isinstance(found, bool) else found:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not met in {seconds} s")
        await asyncio.sleep(0.02)


@dataclass
class Process:
    """The service as a child process; `kill` is SIGKILL, `stop` is SIGTERM."""

    env: dict[str, str]
    log: Path
    port: int
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "cryptopulse.alerts"], env=self.env, stdout=out, stderr=out
            )

    async def ready(self, seconds: float = 20.0) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:

            async def is_ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            try:
                await until(is_ready, seconds=seconds, what="/readyz")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log.read_text()[-4000:]}") from None

    def kill(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait(10)

    def stop(self) -> int:
        assert self.child is not None
        if self.child.poll() is None:
            self.child.terminate()
        return self.child.wait(30)


@dataclass
class Service:
    """Everything that a test needs of a running service."""

    process: Process
    bus: RabbitBus
    db: Database
    redis_url: str
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def as_user(self, user: str, *, tier: str = "free") -> httpx.AsyncClient:
        if user not in self.clients:
            token = InternalSigner(SECRET, "gateway").sign(
                Identity(user_id=user, scopes=frozenset({"*"}), tier=tier), "alerts"
            )
            self.clients[user] = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self.process.port}",
                headers={"Authorization": f"Bearer {token}"},
                trust_env=False,
                timeout=20,
            )
        return self.clients[user]

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        async with self.db.transaction() as conn:
            await conn.execute("SELECT set_config('app.engine', 'on', true)")
            return await conn.fetch(query, *args)


@pytest.fixture
def process(rabbit_vhost: str, redis_db: str, postgres_db: str, tmp_path: Path) -> Iterator[Process]:
    asyncio.run(migrate(postgres_db, schema="alerts", role="cryptopulse_alerts", directory=MIGRATIONS))
    port = free_port()
    env = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "RABBITMQ_URL": rabbit_vhost,
        "REDIS_URL": redis_db,
        "DATABASE_URL": postgres_db,
        "INTERNAL_JWT_SECRET": SECRET,
        "CRYPTOPULSE_ALERTS_PORT": str(port),
        "CRYPTOPULSE_ALERTS_WEBHOOKS_ALLOW_INSECURE": "true",
        "INDICATORS_URL": f"http://127.0.0.1:{free_port()}",
        "PORTFOLIO_URL": f"http://127.0.0.1:{free_port()}",
        "SHARDS": "2",
        "LOG_FORMAT": "text",
    }
    made = Process(env, tmp_path / "alerts.log", port)
    yield made
    made.kill()


@pytest.fixture
async def service(process: Process, redis_db: str) -> AsyncIterator[Service]:
    process.start()
    bus = RabbitBus(process.env["RABBITMQ_URL"], service="test")
    await bus.start()
    db = Database(
        process.env["DATABASE_URL"], schema="alerts", role="cryptopulse_alerts", application_name="test"
    )
    await db.start()
    await process.ready()
    found = Service(process, bus, db, redis_db)
    await owns_all_shards(found)
    yield found
    for client in found.clients.values():
        await client.aclose()
    await bus.close()
    await db.close()


async def owns_all_shards(service: Service) -> None:
    """Wait until every shard's queue has its consumer."""
    await until(
        lambda: service.process.log.read_text().count("shard acquired") >= 2,
        what="both shards acquired",
        seconds=20,
    )


@dataclass
class Receiver:
    """An HTTP server on loopback that notes what it gets, and answers as told."""

    port: int
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    delay: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((headers, body))
            await asyncio.sleep(self.delay)
            status, extra = self.answers.pop(0) if self.answers else (200, {})
            lines = [f"HTTP/1.1 {status} X", "Content-Length: 2", *(f"{k}: {v}" for k, v in extra.items())]
            writer.write(("\r\n".join(lines) + "\r\n\r\nok").encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver(0)
    server = await asyncio.start_server(found.handle, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await server.wait_closed()
