"""The whole system on servers of its own, which may be killed, cut off and brought back; TCP proxies stand between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import jwt

from cryptopulse.common.testing.servers.binaries import find_postgres, find_rabbitmq, find_redis
from cryptopulse.common.testing.servers.ports import free_port
from cryptopulse.common.testing.servers.postgres import PostgresServer
from cryptopulse.common.testing.servers.rabbitmq import RabbitServer
from cryptopulse.common.testing.servers.redis import RedisServer
from cryptopulse.common.testing.servers.server import LocalServer, Profile
from cryptopulse.common.testing.tcp_proxy import TcpProxy
from tests.faults.report import Pulse
from tools.harness.system import ROOT, Backends, System
from tools.local_stack.config import run_folder

BEHIND = ("ingestor", "indicators", "alerts", "portfolio")
"""The services that others ask over HTTP."""
FIVE = ("ingestor", "indicators", "alerts", "portfolio", "gateway")
LOGS = run_folder(os.environ, ROOT) / "faults"
"""The logs of the newest session's processes stay here."""
SURVIVES_KILLS = Profile(durable=True, management=True)
SERVER_SECONDS = 90.0
READY_SECONDS = 90.0
SETTINGS = {
    "SYMBOLS": "BTC-USDT,BTC-USD,ETH-USDT,ETH-USD,SOL-USDT,SOL-USD",
    "CRYPTOPULSE_INDICATORS_HOLES_SECONDS": "5",
    "CRYPTOPULSE_INDICATORS_WITNESS_SECONDS": "0",
    "CRYPTOPULSE_ALERTS_WEBHOOK_LEASE_SECONDS": "20",
    "CRYPTOPULSE_INGESTOR_CHECK_SECONDS": "60",
    "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "1",
    "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "3",
    "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "10",
    "CRYPTOPULSE_GATEWAY_READY_AFTER_SECONDS": "10",
    "LOG_FORMAT": "text",
}


def missing_programs() -> str:
    """Which servers are not installed here as programs; empty when all are."""
    found = {
        "rabbitmq-server": find_rabbitmq(os.environ),
        "redis-server": find_redis(os.environ),
        "postgres": find_postgres(os.environ),
    }
    return ", ".join(name for name, binary in found.items() if binary is None)


class OwnServers:
    """A RabbitMQ, a Redis and a Postgres of these cases alone: killed, paused and started again on the same data and ports."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cryptopulse-faults-"))
        self.folder.chmod(0o711)  # Postgres may have to pass through as another user
        environ = os.environ
        self.rabbitmq = RabbitServer(self.folder / "servers", SURVIVES_KILLS, environ)
        self.redis = RedisServer(self.folder / "servers", SURVIVES_KILLS, environ)
        self.postgres = PostgresServer(self.folder / "servers", SURVIVES_KILLS, environ)
        self.all: dict[str, LocalServer] = {
            "rabbitmq": self.rabbitmq,
            "redis": self.redis,
            "postgres": self.postgres,
        }

    async def start(self) -> None:
        """All three, until they answer."""
        (self.folder / "servers").mkdir(exist_ok=True)
        (self.folder / "servers").chmod(0o711)
        for server in self.all.values():
            server.choose_ports()
            server.launch()
        for name in self.all:
            await self.until_ready(name)

    async def until_ready(self, name: str) -> None:
        """Until it does its work."""
        server = self.all[name]
        deadline = time.monotonic() + SERVER_SECONDS
        while not await asyncio.to_thread(server.is_ready):
            assert time.monotonic() < deadline, f"{name} is not ready:\n{server.log_tail()}"
            await asyncio.sleep(0.1)

    def kill(self, name: str) -> None:
        """SIGKILL, without any goodbye; a Postgres postmaster takes its children along in its own time."""
        main = self.all[name].children[-1]
        main.signal(signal.SIGKILL)
        assert main.join(10)

    def pause(self, name: str) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self.all[name].children[-1].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.all[name].children[-1].signal(signal.SIGCONT)

    async def revive(self, name: str) -> None:
        """Start what was killed, on the same data and port."""
        server = self.all[name]
        await asyncio.to_thread(server.join)
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            server.launch()
            while server.is_running() and not await asyncio.to_thread(server.is_ready):
                assert time.monotonic() < deadline, f"{name} does not come back:\n{server.log_tail()}"
                await asyncio.sleep(0.1)
            if server.is_running():
                return
            # A killed Postgres may still have children that hold its shared memory: they go, then it starts.
            assert time.monotonic() < deadline, f"{name} does not come back:\n{server.log_tail()}"
            await asyncio.to_thread(server.join)
            await asyncio.sleep(0.5)

    def empty_redis(self) -> None:
        """Remove what a killed Redis had written."""
        for path in self.redis.folder.glob("appendonlydir"):
            shutil.rmtree(path)
        for path in self.redis.folder.glob("dump.rdb"):
            path.unlink()

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against our node."""
        found = find_rabbitmq(os.environ)
        assert found is not None
        tool = found.server.with_name("rabbitmqctl")
        env = self.rabbitmq.environment()
        env.pop("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS")
        done = subprocess.run(
            [str(tool), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        """All of them, and their data."""
        for server in self.all.values():
            for child in server.children:
                child.signal(signal.SIGCONT)
            server.ask_to_stop()
        for server in self.all.values():
            server.join()
            server.forget()
        shutil.rmtree(self.folder, ignore_errors=True)


class Proxies:
    """TCP proxies on a thread and loop of their own, so that nothing that a case does holds them up."""

    def __init__(self, targets: dict[str, int]) -> None:
        self.by_name = {name: TcpProxy("127.0.0.1", port) for name, port in targets.items()}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for proxy in self.by_name.values():
            asyncio.run_coroutine_threadsafe(proxy.__aenter__(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.by_name.values():
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset(self, name: str) -> None:
        """RST to all connections of a proxy."""
        self._loop.call_soon_threadsafe(self.by_name[name].reset)

    def heal(self) -> None:
        """No toxics anywhere. What went through a blackhole is torn, so those connections are cut."""
        for name, proxy in self.by_name.items():
            toxics = proxy.toxics
            if toxics.blackhole:
                self.reset(name)
            toxics.latency_seconds, toxics.bytes_per_second, toxics.slice_bytes = 0.0, 0, 0
            toxics.blackhole = toxics.refuse = False


def through(url: str, port: int) -> str:
    """The URL with another port."""
    parts = urlsplit(url)
    account, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}"))


@dataclass
class Stand(System):
    """The system with its servers and proxies; second replicas have names like `gateway2`."""

    servers: OwnServers = field(default_factory=OwnServers)
    proxies: Proxies | None = None
    overrides: dict[str, dict[str, str]] = field(default_factory=dict)
    public: dict[str, int] = field(default_factory=dict)
    has_settled: bool = False

    @property
    def proxy(self) -> dict[str, TcpProxy]:
        """The proxies by the server's name."""
        assert self.proxies is not None
        return self.proxies.by_name

    def _environment(self) -> dict[str, str]:
        """The services reach each other through proxies, as through a load balancer: `turn` points one elsewhere."""
        found = super()._environment()
        for service in BEHIND:
            proxy = self.proxy[service]
            proxy.target_port = self.ports[service]
            found[f"{service.upper()}_URL"] = f"http://127.0.0.1:{proxy.port}"
        return found

    def turn(self, service: str, replica: str) -> None:
        """New connections to a service go to this replica of it."""
        self.proxy[service].target_port = self.ports[replica]

    def start(self, service: str) -> None:
        """Start a service, or its second replica by `<service>2`."""
        kind = service.removesuffix("2")
        if service != kind and service not in self.ports:
            self.ports[service] = free_port()
            self.overrides[service] = dict(self.overrides.get(kind, {})) | {
                f"CRYPTOPULSE_{kind.upper()}_PORT": str(self.ports[service])
            }
            if kind == "gateway":
                self.public[service] = free_port()
                self.overrides[service]["PORT"] = str(self.public[service])
        self.spawn(service, [sys.executable, "-m", f"cryptopulse.{kind}"])

    def spawn(self, name: str, command: list[str], settings: Mapping[str, str] | None = None) -> None:
        """As any process of a system, with what a case has set for it."""
        super().spawn(name, command, self.overrides.get(name, {}) | dict(settings or {}))

    def is_running(self, name: str) -> bool:
        """Whether the process lives."""
        process = self.processes.get(name)
        return process is not None and process.poll() is None

    async def retire(self, name: str) -> int:
        """SIGTERM to a second replica and the end of it; its exit code."""
        process = self.processes.pop(name)
        if process.poll() is None:
            process.terminate()
        return await asyncio.to_thread(process.wait, 40)

    async def heal(self) -> None:
        """Everything up again, however the last case ended."""
        assert self.proxies is not None
        self.proxies.heal()
        for name, server in self.servers.all.items():
            self.servers.resume(name)
            if not server.is_running():
                await self.servers.revive(name)
        for service in BEHIND:
            self.turn(service, service)
        for name in [name for name in self.processes if name.endswith("2")]:
            self.processes[name].send_signal(signal.SIGCONT)
            await self.retire(name)
        if not self.is_running("simulator"):
            self.start_simulator()
        for service in FIVE:
            if self.is_running(service):
                self.processes[service].send_signal(signal.SIGCONT)
            else:
                self.start(service)
        for service in FIVE:
            await self.until_ready(service)
        await self.control("DELETE", "/fault")
        await self.control("POST", "/resume")
        await self.price("BTC")

    async def until_ready(self, service: str, *, seconds: float = READY_SECONDS) -> None:
        """As of any system, but with the patience that servers under faults need."""
        await super().until_ready(service, seconds=seconds)

    async def settled_in(self) -> None:
        """Until the first history is stored and a whole minute begins: the minute of the start is repaired later, in its turn."""

        async def done() -> bool:
            left = await self.metrics("ingestor")
            series = [v for k, v in left.items() if k.startswith("cryptopulse_history_series_left")]
            return bool(series) and not any(series)

        await self.until(done, what="the history is stored", of="ingestor", seconds=180)
        if not self.has_settled:
            next_minute = (time.time() // 60 + 1) * 60
            await asyncio.sleep(next_minute - time.time())
        self.has_settled = True

    async def metrics(self, service: str) -> dict[str, float]:
        """The samples of a service's metrics, keyed as they are written."""
        answer = await self.client.get(f"http://127.0.0.1:{self.ports[service]}/metrics")
        found = {}
        for line in answer.text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    async def count(self, service: str, name: str, *labels: str) -> int:
        """A metric, summed over its samples that carry all these `label="value"` texts; 0 when it cannot be read."""
        with contextlib.suppress(httpx.HTTPError):
            return int(
                sum(
                    value
                    for sample, value in (await self.metrics(service)).items()
                    if sample.partition("{")[0] == name and all(label in sample for label in labels)
                )
            )
        return 0

    def token(self, user: str) -> dict[str, str]:
        """The headers of a user of the widest plan."""
        claims = {"sub": user, "exp": int(time.time()) + 3_600, "tier": "enterprise"}
        return {"authorization": f"Bearer {jwt.encode(claims, self.secret, 'HS256')}"}

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        """Rows straight from Postgres, past every proxy."""
        connection = await asyncpg.connect(self.servers.postgres.urls()["DATABASE_URL"])
        try:
            found: list[Any] = await connection.fetch(query, *arguments)
            return found
        finally:
            await connection.close()

    async def newest(self) -> object:
        """What identifies the newest price of BTC at the gateway; None when there is none."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = await self.client.get("/prices/BTC")
            if answer.status_code == httpx.codes.OK:
                body = answer.json()
                return None if body["stale"] else (body["price"], body.get("ts"), body.get("received_at"))
        return None

    async def memory_mib(self, name: str) -> float:
        """Resident memory of a process."""
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        kib = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
        return int(kib) / 1024


@contextlib.asynccontextmanager
async def watching(stand: Stand) -> Any:
    """Looks at the gateway's newest price five times a second; yields its `Pulse`."""
    pulse = Pulse()

    async def look() -> None:
        while True:
            pulse.look(await stand.newest())
            await asyncio.sleep(0.2)

    task = asyncio.create_task(look())
    try:
        yield pulse
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def running_stand() -> Any:
    """The whole of it."""
    shutil.rmtree(LOGS, ignore_errors=True)
    servers = OwnServers()
    try:
        await servers.start()
        targets = {
            "rabbitmq": servers.rabbitmq.amqp_port,
            "redis": servers.redis.port,
            "postgres": servers.postgres.port,
            **dict.fromkeys(BEHIND, 0),
        }
        with Proxies(targets) as proxies:
            urls = {name: value for server in servers.all.values() for name, value in server.urls().items()}
            ports = {name: proxy.port for name, proxy in proxies.by_name.items()}
            backends = Backends(
                urls["RABBITMQ_URL"],
                through(urls["REDIS_URL"], ports["redis"]),
                through(urls["DATABASE_URL"], ports["postgres"]),
            )
            stand = Stand(
                backends,
                LOGS,
                settings=SETTINGS,
                simulator_arguments=("--rate", "80", "--coins", "5"),
                servers=servers,
                proxies=proxies,
                overrides={"indicators": {"RABBITMQ_URL": through(urls["RABBITMQ_URL"], ports["rabbitmq"])}},
            )
            async with stand:
                yield stand
    finally:
        servers.stop()
