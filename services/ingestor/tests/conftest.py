"""The ingestor as a process of its own between the simulator and real servers, and a collector of all it publishes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cryptopulse.common.bus.protocols import Delivery
from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.catalogue import CoinList, InstrumentList
from cryptopulse.common.contracts.feeds import FeedStatus
from cryptopulse.common.contracts.ticks import Conflated, Quote, ReferencePrice, TickBatch, Trade
from cryptopulse.common.contracts.topics import COINS, FEEDS, HISTORY, INSTRUMENTS, TICKS, Queue
from cryptopulse.common.security.identity import Identity, InternalSigner

SECRET = "an-internal-secret-of-the-tests-of-ingest-0123456789"
ROOT = Path(__file__).resolve().parents[3]


class Collector:
    """Everything that the ingestor published since the start."""

    def __init__(self, url: str) -> None:
        self.bus = RabbitBus(url, service="collector")
        self.batches: list[TickBatch] = []
        self.trades: dict[tuple[str, str], list[Trade]] = defaultdict(list)
        self.quotes: dict[tuple[str, str], list[Quote]] = defaultdict(list)
        self.references: dict[str, ReferencePrice] = {}
        self.conflated: list[Conflated] = []
        self.candles: dict[tuple[str, str, str], dict[int, Candle]] = defaultdict(dict)
        self.history: list[HistoryBatch] = []
        self.status: dict[str, FeedStatus] = {}
        self.states: dict[str, list[str]] = defaultdict(list)
        self.instruments: dict[str, InstrumentList] = {}
        self.coins: dict[str, Any] = {}

    async def start(self, *, survives: bool = False) -> None:
        """`survives`: the ticks' queue outlives the broker, as those of the services do."""
        await self.bus.start()
        assert await self.bus.wait_connected(10)
        for topic in (TICKS, FEEDS, HISTORY, INSTRUMENTS, COINS):
            live = topic.delivery == "live" and not (survives and topic is TICKS)
            queue = Queue(
                consumer="collector", topic=topic, bindings=("#",), exclusive=live, max_length=1_000_000
            )
            subscription = await self.bus.subscribe(queue, self._take)
            for _ in range(100):
                if subscription.active:
                    break
                await asyncio.sleep(0.05)

    async def _take(self, delivery: Delivery) -> None:
        match delivery.message:
            case TickBatch() as batch:
                self._ticks(batch)
            case HistoryBatch() as page:
                self.history.append(page)
                for candle in page.candles:
                    self.candles[page.venue, page.symbol, page.interval][candle.open_time] = candle
            case FeedStatus() as status:
                self.status[status.venue] = status
                if self.states[status.venue][-1:] != [status.state]:
                    self.states[status.venue].append(status.state)
            case InstrumentList() as listed:
                self.instruments[listed.venue] = listed
            case CoinList() as coins:
                self.coins.update((coin.id, coin) for coin in coins.coins)

    def _ticks(self, batch: TickBatch) -> None:
        self.batches.append(batch)
        self.conflated += batch.conflated
        for trade in batch.trades:
            self.trades[batch.venue, trade.symbol].append(trade)
        for quote in batch.quotes:
            self.quotes[batch.venue, quote.symbol].append(quote)
        for reference in batch.references:
            self.references[reference.coin_id] = reference

    def ids(self, venue: str, symbol: str) -> list[int]:
        return [trade.trade_id for trade in self.trades[venue, symbol]]

    def assert_each_once_in_order(self) -> None:
        """No id missing between the first and the last, none twice, and each symbol in order."""
        for (venue, symbol), trades in self.trades.items():
            ids = [trade.trade_id for trade in trades]
            assert ids == list(range(ids[0], ids[0] + len(ids))), f"{venue} {symbol}: {_oddities(ids)}"


def _oddities(ids: list[int]) -> str:
    odd = [(a, b) for a, b in pairwise(ids) if b != a + 1]
    return f"{len(ids)} trades, jumps {odd[:10]}"


class IngestorProcess:
    """`python -m cryptopulse.ingestor` with settings of a test."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment = environment
        self.port = _free_port()
        self._log = log
        self._child: asyncio.subprocess.Process | None = None

    async def start(self, **settings: str) -> None:
        environment = {
            **os.environ,
            "INTERNAL_JWT_SECRET": SECRET,
            "LOG_FORMAT": "text",
            "FEED": "sim",
            "CRYPTOPULSE_INGESTOR_PORT": str(self.port),
            "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "0",
            "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "0",
            "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "0",
            "CRYPTOPULSE_INGESTOR_VENUES": "binance,coinbase",
            **self.environment,
            **settings,
        }
        with self._log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cryptopulse.ingestor",
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        child = self._child
        assert child is not None
        if child.returncode is None:
            child.send_signal(number)
        return await asyncio.wait_for(child.wait(), 20)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def headers(self, kind: Any = "service", scopes: frozenset[str] = frozenset()) -> dict[str, str]:
        user = "u-1" if kind == "user" else None
        who = Identity(user_id=user, kind=kind, scopes=scopes)
        token = InternalSigner(SECRET, "test").sign(who, "ingestor")
        return {"Authorization": f"Bearer {token}"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def close(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(TimeoutError):
                await self.stop()
            if self._child.returncode is None:
                self._child.kill()
                await self._child.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
async def collector(rabbit_vhost: str) -> AsyncIterator[Collector]:
    """Subscribed before anything is published."""
    found = Collector(rabbit_vhost)
    await found.start()
    yield found
    await found.bus.close()


@pytest.fixture
async def make_collector() -> AsyncIterator[Callable[..., Awaitable[Collector]]]:
    """Collectors on a broker of the test's own."""
    made: list[Collector] = []

    async def make(url: str, *, survives: bool = False) -> Collector:
        found = Collector(url)
        made.append(found)
        await found.start(survives=survives)
        return found

    yield make
    for found in made:
        await found.bus.close()


@pytest.fixture
async def ingestor(rabbit_vhost: str, redis_db: str, tmp_path: Path) -> AsyncIterator[IngestorProcess]:
    """Not started yet: a test gives the venues' addresses first."""
    process = IngestorProcess(
        {"RABBITMQ_URL": rabbit_vhost, "REDIS_URL": redis_db}, tmp_path / "ingestor.log"
    )
    yield process
    await process.close()
    print(process.log[-6_000:])


Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a claim holds; fails with its name after the time."""

    async def wait(claim: Callable[[], object], seconds: float = 15.0, what: str = "") -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not claim():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {seconds} s: {what or claim}")
            await asyncio.sleep(0.05)

    return wait
