"""The whole service on real servers, and the two services that it asks played by a small HTTP server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI, Request

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import connect
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.runtime.command import migrations_of
from cryptopulse.common.runtime.service import Runtime
from cryptopulse.common.security.identity import InternalSigner
from cryptopulse.portfolio.bootstrap import build
from cryptopulse.portfolio.settings import PortfolioSettings

SECRET = "a-secret-of-tests-that-is-long-enough-0123456789"
DAY_MS = 86_400_000


@dataclass
class Upstream:
    """Plays the indicators service (candles) and the ingestor (wanted coins)."""

    url: str = ""
    daily: dict[str, dict[int, str]] = field(default_factory=dict)
    minutes: dict[tuple[str, int], str] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/candles/{symbol}")
        async def candles(symbol: str, request: Request) -> dict[str, Any]:
            query = request.query_params
            first, last = int(query["from"]), int(query["to"])
            if query["interval"] == "1d":
                rows = [(day * DAY_MS, c) for day, c in sorted(self.daily.get(symbol, {}).items())]
            elif query["interval"] == "1m":
                rows = [(at, c) for (name, at), c in sorted(self.minutes.items()) if name == symbol]
            else:
                rows = []
            data = [{"open_time": at, "close": c, "closed": True} for at, c in rows if first <= at < last]
            return {"symbol": symbol, "data": data[: int(query["limit"])]}

        @app.put("/wanted")
        async def wanted(request: Request) -> dict[str, Any]:
            self.wanted |= set((await request.json())["coin_ids"])
            return {}

        return app


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    played = Upstream()
    server = uvicorn.Server(
        uvicorn.Config(played.app(), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    played.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield played
    server.should_exit = True
    await task


@dataclass
class Running:
    """The service under test with a client per user."""

    app: FastAPI
    runtime: Runtime
    settings: PortfolioSettings
    upstream: Upstream
    redis: Any
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    seq: int = 0

    def as_user(
        self, user: str | None = "alice", *, scopes: tuple[str, ...] = ("*",), kind: Any = "user"
    ) -> httpx.AsyncClient:
        token = InternalSigner(SECRET, "gateway").sign(
            Identity(user, frozenset(scopes), kind=kind), "portfolio"
        )
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://portfolio",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        self.clients.append(client)
        return client

    async def price(
        self, asset: str, price: str, *, age_seconds: float = 0.0, change: str | None = None
    ) -> None:
        self.seq += 1
        now = SystemClock().now_us() - int(age_seconds * 1e6)
        update = PriceUpdate(
            symbol=f"{asset}-USD", source="consolidated", price=Decimal(price), low=Decimal(price), high=Decimal(price),
            epoch=1, seq=self.seq, event_us=now, received_us=now,
            change_24h_pct=None if change is None else Decimal(change),
        )  # fmt: skip
        await self.redis.set(keys.price(f"{asset}-USD"), msgspec.msgpack.encode(update))

    async def reference(self, coin_id: str, price: str) -> None:
        now = SystemClock().now_us()
        value = ReferencePrice(coin_id, coin_id[:3], Decimal(price), now, now)
        await self.redis.set(keys.coin_price(coin_id), msgspec.msgpack.encode(value))

    async def catalogue(self) -> None:
        """Ten coins; `batcat` shares the symbol BTC and `obscure` is traded nowhere."""
        coins = [
            Coin(id="bitcoin", symbol="btc", name="Bitcoin", market_cap_rank=1),
            Coin(id="ethereum", symbol="eth", name="Ethereum", market_cap_rank=2),
            Coin(id="binancecoin", symbol="bnb", name="BNB", market_cap_rank=4),
            Coin(id="batcat", symbol="btc", name="Batcat", market_cap_rank=3000),
            Coin(id="obscure", symbol="obs", name="Obscure", market_cap_rank=4000),
        ]
        pairs = [
            Pair(f"{base}-{quote}", ["binance"])
            for base in ("BTC", "ETH", "BNB")
            for quote in ("USDT", "USD")
        ]
        pairs += [Pair("USDT-USD", ["coinbase"]), Pair("EUR-USD", ["coinbase"])]
        catalogue = Catalogue(
            version=1, pairs=pairs, coins=coins,
            asset_coins={"BTC": "bitcoin", "ETH": "ethereum", "BNB": "binancecoin"},
        )  # fmt: skip
        await self.redis.set(keys.CATALOGUE, msgspec.msgpack.encode(catalogue))
        await self.redis.set(keys.CATALOGUE_VERSION, 1)


@pytest.fixture
async def service(
    postgres_db: str, redis_db: str, rabbit_vhost: str, upstream: Upstream
) -> AsyncIterator[Running]:
    """Built as in production, on a database, a Redis db and a vhost of this test."""
    settings = PortfolioSettings.load(
        {
            "DATABASE_URL": postgres_db,
            "REDIS_URL": redis_db,
            "RABBITMQ_URL": rabbit_vhost,
            "INTERNAL_JWT_SECRET": SECRET,
            "INDICATORS_URL": upstream.url,
            "INGESTOR_URL": upstream.url,
        }
    )
    directory = migrations_of(PortfolioSettings)
    assert directory is not None
    facts = settings.facts()
    await migrate(postgres_db, schema=facts.schema, role=facts.role, directory=directory)
    runtime = Runtime("portfolio", version="test")
    redis = connect(redis_db)
    running = Running(runtime.app, runtime, settings, upstream, redis)
    await running.catalogue()
    async with build(settings, runtime):
        runtime._loops.start()
        async with asyncio.timeout(10):
            while not all([(await _ok(check)) for check in runtime.health._checks.values()]):
                await asyncio.sleep(0.05)
        yield running
        for client in running.clients:
            await client.aclose()
        await runtime._loops.cancel(2.0)
    with contextlib.suppress(Exception):
        await redis.aclose()


async def _ok(check: Any) -> bool:
    found = check()
    if asyncio.iscoroutine(found):
        found = await found
    return bool(found.ok)
