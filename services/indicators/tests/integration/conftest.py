"""The service as a process on real servers, and a feed that the tests play by hand."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio as redis_asyncio

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.catalogue import Coin, CoinList, Instrument, InstrumentList
from cryptopulse.common.contracts.identity import ANONYMOUS
from cryptopulse.common.contracts.intervals import Interval, length_ms
from cryptopulse.common.contracts.ticks import Quote, ReferencePrice, TickBatch, Trade
from cryptopulse.common.contracts.topics import COINS, HISTORY, INSTRUMENTS, TICKS, shard_of
from cryptopulse.common.contracts.values import Side
from cryptopulse.common.security.identity import InternalSigner

SECRET = "indicators-test-secret-0123456789abcdef"
SHARDS = 2
MINUTE_US = 60_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Replica:
    """One process of the service."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._file = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cryptopulse.indicators"],
            env=environ | {"CRYPTOPULSE_INDICATORS_PORT": str(self.port)},
            stdout=self._file,
            stderr=self._file,
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(20)
        self._file.close()
        return code


class Feed:
    """What an ingestor would say, said by hand: ids rise by themselves, times are given in ms after `start_us`."""

    def __init__(self, bus: RabbitBus) -> None:
        self.bus = bus
        self.start_us = (time.time_ns() // 1000 - 30 * MINUTE_US) // MINUTE_US * MINUTE_US
        self.seq = 0
        self.ids: dict[tuple[str, str], int] = {}
        self.offset_us = -30 * MINUTE_US

    def trade(
        self,
        symbol: str,
        at_ms: float,
        price: Any,
        size: Any = "1",
        venue: str = "binance",
        side: Side = "buy",
    ) -> Trade:
        number = self.ids[venue, symbol] = self.ids.get((venue, symbol), 0) + 1
        event = self.start_us + int(at_ms * 1000)
        return Trade(
            symbol,
            number,
            Decimal(str(price)),
            Decimal(str(size)),
            side,
            event,
            time.time_ns() // 1000,
        )

    async def send(
        self, *trades: Trade, venue: str = "binance", quotes: list[Quote] | None = None, **more: Any
    ) -> None:
        symbols = sorted({t.symbol for t in trades} | {q.symbol for q in quotes or []})
        by_shard: dict[int, list[Trade]] = {}
        for trade in trades:
            by_shard.setdefault(shard_of(trade.symbol.partition("-")[0], SHARDS), []).append(trade)
        for quote in quotes or []:
            by_shard.setdefault(shard_of(quote.symbol.partition("-")[0], SHARDS), [])
        for shard, part in by_shard.items():
            self.seq += 1
            mine = [q for q in quotes or [] if shard_of(q.symbol.partition("-")[0], SHARDS) == shard]
            batch = TickBatch(
                venue=venue, shard=shard, epoch=1, seq=self.seq, sent_us=time.time_ns() // 1000,
                clock_offset_us=(trades[-1].event_us - time.time_ns() // 1000) if trades else self.offset_us, trades=part, quotes=mine, **more,
            )  # fmt: skip
            await self.bus.publish(
                TICKS, batch, key=f"batch.{shard}.{venue}", cc=[f"tick.{venue}.{s}" for s in symbols]
            )

    async def reference(self, coin_id: str, symbol: str, price: str) -> None:
        now = time.time_ns() // 1000
        row = ReferencePrice(
            coin_id,
            symbol,
            Decimal(price),
            now,
            now,
            Decimal("1.5"),
            Decimal("0.5"),
            Decimal(10**9),
            Decimal(5),
        )
        shard = shard_of(symbol, SHARDS)
        self.seq += 1
        batch = TickBatch(
            venue="coingecko", shard=shard, epoch=1, seq=self.seq, sent_us=now, references=[row]
        )
        await self.bus.publish(TICKS, batch, key=f"batch.{shard}.coingecko")

    async def history(
        self, symbol: str, interval: Interval, candles: list[Candle], venue: str = "binance"
    ) -> None:
        shard = shard_of(symbol.partition("-")[0], SHARDS)
        for start in range(0, len(candles), 1_000):
            part = candles[start : start + 1_000]
            batch = HistoryBatch(
                venue=venue, symbol=symbol, interval=interval, candles=part,
                from_ms=part[0].open_time, to_ms=part[-1].open_time + length_ms(interval),
            )  # fmt: skip
            await self.bus.publish(HISTORY, batch, key=f"backfill.{shard}.{venue}.{symbol}")

    async def catalogue(self) -> None:
        now = time.time_ns() // 1000
        pairs = [
            Instrument(
                venue="binance",
                symbol=s,
                native=s.replace("-", ""),
                status="trading",
                price_increment=Decimal("0.01"),
            )
            for s in ("BTC-USDT", "ETH-USDT", "USDC-USDT")
        ]
        await self.bus.publish(
            INSTRUMENTS,
            InstrumentList(venue="binance", at_us=now, instruments=pairs),
            key="instrument.binance",
        )
        pairs = [
            Instrument(
                venue="coinbase", symbol=s, native=s, status="trading", price_increment=Decimal("0.01")
            )
            for s in ("BTC-USD", "ETH-USD", "USDT-USD")
        ]
        await self.bus.publish(
            INSTRUMENTS,
            InstrumentList(venue="coinbase", at_us=now, instruments=pairs),
            key="instrument.coinbase",
        )
        coins = [
            Coin(
                id="bitcoin", symbol="btc", name="Bitcoin", market_cap_rank=1, image="http://127.0.0.1/b.png"
            ),
            Coin(id="ethereum", symbol="eth", name="Ethereum", market_cap_rank=2),
            Coin(id="batcat", symbol="btc", name="batcat", market_cap_rank=3000),
            Coin(id="tether", symbol="usdt", name="Tether", market_cap_rank=3),
            Coin(id="dogwifcoin", symbol="wif", name="dogwifhat", market_cap_rank=80),
        ]
        await self.bus.publish(COINS, CoinList(at_us=now, coins=coins), key="coin.bitcoin")


class Api:
    """The service's HTTP as the gateway calls it."""

    def __init__(self, replica: Replica) -> None:
        signer = InternalSigner(SECRET, "gateway")
        self.client = httpx.AsyncClient(
            base_url=replica.url,
            headers={"Authorization": f"Bearer {signer.sign(ANONYMOUS, 'indicators')}"},
            timeout=10,
        )

    async def get(self, path: str, **params: Any) -> Any:
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text[:400]}"
        return response.json()

    async def status(self, path: str, **params: Any) -> int:
        return (await self.client.get(path, params=params)).status_code


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 15.0) -> Any:
    """The first truthy answer; the last failure when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        failure: Exception | None = None
        try:
            found = await check()
            if found:
                return found
        except (AssertionError, httpx.HTTPError, KeyError, IndexError) as error:
            failure = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {failure}")
        await asyncio.sleep(0.1)


@pytest.fixture
def environ(rabbit_vhost: str, redis_db: str, postgres_db: str) -> dict[str, str]:
    return {
        **os.environ,
        "RABBITMQ_URL": rabbit_vhost,
        "REDIS_URL": redis_db,
        "DATABASE_URL": postgres_db,
        "INTERNAL_JWT_SECRET": SECRET,
        "SHARDS": str(SHARDS),
        "LOG_FORMAT": "text",
        "INGESTOR_URL": "http://127.0.0.1:9",
        "CRYPTOPULSE_INDICATORS_HOLES_SECONDS": "3600",
    }


@pytest.fixture
def launch(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], Replica]]:
    subprocess.run(
        [sys.executable, "-m", "cryptopulse.indicators", "migrate"],
        env=environ,
        check=True,
        capture_output=True,
        timeout=60,
    )
    replicas: list[Replica] = []

    def start() -> Replica:
        replicas.append(Replica(environ, tmp_path / f"indicators-{len(replicas)}.log"))
        return replicas[-1]

    yield start
    for replica in replicas:
        if replica.process.poll() is None:
            replica.stop(signal.SIGKILL)
        text = replica.log.read_text(errors="replace")
        print(f"--- {replica.log.name}\n{text[-6000:]}")


@pytest.fixture
async def replica(launch: Callable[[], Replica]) -> Replica:
    started = launch()
    async with httpx.AsyncClient(base_url=started.url) as client:

        async def ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await until(ready, 20)
    return started


@pytest.fixture
async def api(replica: Replica) -> AsyncIterator[Api]:
    found = Api(replica)
    yield found
    await found.client.aclose()


@pytest.fixture
async def bus(rabbit_vhost: str) -> AsyncIterator[RabbitBus]:
    connection = RabbitBus(rabbit_vhost, service="test", clock=SystemClock())
    await connection.start()
    assert await connection.wait_connected(10)
    yield connection
    await connection.close()


@pytest.fixture
async def feed(bus: RabbitBus) -> Feed:
    return Feed(bus)


@pytest.fixture
async def redis(redis_db: str) -> AsyncIterator[Any]:
    client = redis_asyncio.Redis.from_url(redis_db)
    yield client
    await client.aclose()


@pytest.fixture
def make_api() -> Callable[[Replica], Api]:
    return Api
