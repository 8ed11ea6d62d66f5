"""One real gateway process on real servers, fed over the bus as the other services would; and other servers beside it."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import jwt
import psutil

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.prices import PriceBatch, PriceUpdate
from cryptopulse.common.contracts.ticks import TickBatch, Trade
from cryptopulse.common.contracts.topics import PRICES, TICKS
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.testing.servers.ports import free_port
from tools.bench.backends import fresh_backends

ROOT = Path(__file__).resolve().parents[2]
SYMBOL = "BTC-USD"
TRADED = "BTC-USDT"
START_SECONDS = 40.0


@dataclass
class Server:
    """A server process that is measured."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """User and system time until now."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def resident_mib(self) -> float:
        """Resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


@dataclass
class Gateway(Server):
    """The gateway, its feed, and tokens for its clients."""

    bus: RabbitBus
    secret: str
    internal_port: int
    trade_id: int = 0
    told: int = 0

    def token(self, user: str) -> str:
        """An access token of a user whose tier no limit of a benchmark reaches; the limits are counted all the same."""
        claims = {"sub": user, "exp": int(time.time()) + 3_600, "tier": "enterprise"}
        return jwt.encode(claims, self.secret, algorithm="HS256")

    async def price(self) -> None:
        """Tell prices: the consolidated one, and that of the traded pair."""
        self.trade_id += 1
        now = time.time_ns() // 1_000
        price = Decimal("67000.12")
        updates = [
            PriceUpdate(
                symbol=symbol, source=source, price=price, low=price, high=price, epoch=1, seq=self.trade_id,
                event_us=now, received_us=now, bid=Decimal("67000.11"), ask=Decimal("67000.13"),
                sources_used=["binance", "coinbase"],
            )
            for symbol, source in ((SYMBOL, CONSOLIDATED), (TRADED, "binance"))
        ]  # fmt: skip
        batch = PriceBatch(shard=0, epoch=1, sent_us=now, prices=updates)
        await self.bus.publish(PRICES, batch, key="batch.0")

    async def trades(self, count: int) -> None:
        """Tell trades; the id of each is the time in microseconds at which it was told."""
        now = time.time_ns() // 1_000
        first = max(self.trade_id + 1, now)
        self.trade_id = first + count
        price, size = Decimal("67000.10"), Decimal("0.00123")
        trades = [Trade(TRADED, first + at, price, size, "buy", now, now) for at in range(count)]
        batch = TickBatch(
            venue="binance",
            shard=0,
            epoch=1,
            seq=first,
            sent_us=now,
            trades=trades,
            offsets={TRADED: self.told + 1},
        )
        self.told += count
        await self.bus.publish(TICKS, batch, key="batch.0.binance", cc=[f"tick.binance.{TRADED}"])

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.internal_port}/metrics")).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def until_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for 200."""
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    said = await asyncio.to_thread(log.read_text, errors="replace")
    raise RuntimeError(f"no answer from {url}\n{said[-3000:]}")


@asynccontextmanager
async def server(
    arguments: list[str], settings: Mapping[str, str], ready: str, *, port_setting: str = "PORT"
) -> AsyncIterator[Server]:
    """Run `python ARGUMENTS` on a free port (`{port}`, and in the environment) until the block ends; `ready` answers 200."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        with path.open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - a server for the whole block, started in a moment
                [sys.executable, *(part.replace("{port}", str(port)) for part in arguments)],
                cwd=ROOT,
                env={**os.environ, **settings, port_setting: str(port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            await until_answers(f"http://127.0.0.1:{port}{ready}", process, path)
            yield Server(process, port)
        finally:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, 15)
            except subprocess.TimeoutExpired:
                process.kill()


@asynccontextmanager
async def running_gateway() -> AsyncIterator[Gateway]:
    """A gateway that knows a price, on backends of its own; the other services are away."""
    secret, internal = secrets.token_urlsafe(48), free_port()
    async with fresh_backends() as backends:
        settings = {
            "RABBITMQ_URL": backends.rabbitmq,
            "REDIS_URL": backends.redis,
            "DATABASE_URL": backends.postgres,
            "JWT_SECRET": secret,
            "INTERNAL_JWT_SECRET": secrets.token_urlsafe(48),
            "CRYPTOPULSE_GATEWAY_PORT": str(internal),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "WARNING",
        }
        migrated = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "cryptopulse.gateway", "migrate"],
            cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if migrated.returncode:
            raise RuntimeError(f"migrate: {migrated.stdout[-1500:]}{migrated.stderr[-1500:]}")
        bus = RabbitBus(backends.rabbitmq, service="bench")
        await bus.start()
        try:
            async with server(["-m", "cryptopulse.gateway"], settings, "/") as found:
                gateway = Gateway(found.process, found.port, bus, secret, internal)
                await bus.wait_connected(20)
                await _until_priced(gateway)
                yield gateway
        finally:
            await bus.close()


async def _until_priced(gateway: Gateway) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{gateway.port}") as client:
        for _ in range(100):
            await gateway.price()
            if (await client.get(f"/v1/prices/{SYMBOL}")).status_code == httpx.codes.OK:
                return
            await asyncio.sleep(0.2)
    raise RuntimeError("the gateway never knew a price")
