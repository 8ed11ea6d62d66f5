"""Portfolios: a write that replays 10,000 transactions, reads of 50 assets, live values of 10,000 watched portfolios.

Books and prices are on the real Postgres and bus that the environment names; closes come from a table in memory. CPU time is
that of this process; the milliseconds in `more` are wall time, with the database's part inside.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

import asyncpg

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.database.pool import Database
from cryptopulse.common.runtime.command import migrations_of
from cryptopulse.portfolio.adapters.books import PostgresBooks
from cryptopulse.portfolio.adapters.live_feed import BusValuePublisher
from cryptopulse.portfolio.application.imports.reading import Options
from cryptopulse.portfolio.application.imports.use_case import Importer, Request
from cryptopulse.portfolio.application.ledger import Ledger
from cryptopulse.portfolio.application.live import LOAD_AT_ONCE, LiveValues
from cryptopulse.portfolio.application.performance import Performer, Span
from cryptopulse.portfolio.application.ports import AssetRef, Coin, NewPortfolio, Portfolio, Watched
from cryptopulse.portfolio.application.valuation import Valuer
from cryptopulse.portfolio.application.worth import Worth
from cryptopulse.portfolio.domain.money import use_money_context
from cryptopulse.portfolio.domain.transactions import Transaction
from cryptopulse.portfolio.domain.valuation import Position, Quote
from cryptopulse.portfolio.entrypoints.gains_http import history_response
from cryptopulse.portfolio.entrypoints.shapes import holdings_response
from cryptopulse.portfolio.settings import PortfolioSettings
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved, sized

TITLE = "Portfolio: writes that replay, reads of 50 assets, 10,000 live values a second"
LONG_BOOK: Final = sized(10_000, 500)
ASSETS: Final = 50
YEARS_DAYS: Final = 1_825
WATCHED: Final = sized(10_000, 1_000)
HELD: Final = 10
FILE_ROWS: Final = sized(100_000, 2_000)
OWNER: Final = "bench"
DAY_US: Final = 86_400_000_000
START_US: Final = 1_640_995_200_000_000
ONE: Final = Decimal(1)


class Prices:
    """Quotes from memory: latest, live and past at once."""

    def __init__(self, assets: Sequence[str]) -> None:
        self.quotes = {name: Quote(Decimal(10) + number, 5, seq=1) for number, name in enumerate(assets)}
        self.changed: set[str] = set()
        self._today = time.time_ns() // 1_000 // DAY_US
        self._daily = {
            name: {self._today - d: Decimal(5 + (d * 7 + n) % 11) for d in range(1, YEARS_DAYS + 1)}
            for n, name in enumerate(assets)
        }

    def move(self, seq: int) -> None:
        """Every price changes."""
        rng = random.Random(seq)
        for name in self.quotes:
            price = Decimal(rng.randrange(1_000_000, 9_999_999)).scaleb(-4)
            self.quotes[name] = Quote(price, 5, seq=seq, change_24h_pct=Decimal("1.25"))
        self.changed = set(self.quotes)

    async def latest(self, assets: Sequence[AssetRef]) -> dict[str, Quote]:
        return {ref.asset: self.quotes[ref.asset] for ref in assets if ref.asset in self.quotes}

    async def daily(
        self,
        assets: Sequence[AssetRef],
        from_day: int,  # noqa: ARG002 - as the port asks
        to_day: int,  # noqa: ARG002
    ) -> dict[str, Mapping[int, Decimal]]:
        return {ref.asset: self._daily[ref.asset] for ref in assets if ref.asset in self._daily}

    async def at(self, asset: AssetRef, at_us: int) -> Decimal | None:
        return self._daily[asset.asset].get(at_us // DAY_US)

    def quote(self, ref: AssetRef) -> Quote | None:
        return self.quotes.get(ref.asset)

    def take_changed(self) -> set[str]:
        changed, self.changed = self.changed, set()
        return changed

    def asset_of(self, ref: AssetRef) -> str:
        return ref.asset

    def want(self, coin_ids: Collection[str]) -> None:
        """Nobody is asked."""

    def resolve(self, text: str) -> Coin | None:
        return Coin(text)

    def coin(self, coin_id: str) -> Coin | None:  # noqa: ARG002
        return None

    def quote_of(self, text: str) -> str | None:  # noqa: ARG002
        return "USD"

    @property
    def is_loaded(self) -> bool:
        return True


class WatchedBooks:
    """10,000 portfolios of ten assets each, of two hundred."""

    def __init__(self, assets: Sequence[str]) -> None:
        self._assets = assets

    async def load(self, portfolio_ids: Sequence[int]) -> list[Watched]:
        return [
            Watched(number, f"user-{number}", 1, "USD", tuple(self._positions(number)))
            for number in portfolio_ids
        ]

    def _positions(self, number: int) -> list[Position]:
        rng = random.Random(number)
        return [
            Position(
                name,
                Decimal(rng.randrange(1, 10**12)).scaleb(-8),
                Decimal(rng.randrange(1, 10**9)).scaleb(-2),
                Decimal(0),
            )
            for name in sorted(rng.sample(self._assets, HELD))
        ]


def traded(number: int) -> Transaction:
    """Two purchases, then a sale of a bit more than one of them."""
    sells = number % 3 == 2
    quantity = Decimal("0.012") if sells else Decimal("0.01")
    price = Decimal(30_000 + number % 977) + Decimal("0.25")
    fee = Decimal("0.36")
    return Transaction(
        kind="sell" if sells else "buy", at_us=START_US + number * 3_600_000_000, asset="BTC", quantity=quantity,
        price=price, currency="USD", total=quantity * price, value=quantity * price, fx_rate=ONE, fee=fee,
        fee_asset="USD", fee_value=fee, account="main",
    )  # fmt: skip


def bought(asset: str, at_us: int) -> Transaction:
    """A plain purchase."""
    return Transaction(
        kind="buy", at_us=at_us, asset=asset, quantity=Decimal("1.5"), price=Decimal(10), currency="USD",
        total=Decimal(15), value=Decimal(15), fx_rate=ONE, fee_value=Decimal(0), account="main",
    )  # fmt: skip


@asynccontextmanager
async def a_database() -> AsyncIterator[str]:
    """A migrated database of our own on the server that the environment names."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    url = os.environ["DATABASE_URL"]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        fresh = url.rsplit("/", 1)[0] + f"/{name}"
        directory = migrations_of(PortfolioSettings)
        assert directory is not None
        await migrate(fresh, schema="portfolio", role="cryptopulse_portfolio", directory=directory)
        yield fresh
    finally:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.close()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A pool that is connected."""
    database = Database(
        url, schema="portfolio", role="cryptopulse_portfolio", application_name="bench", max_size=4
    )
    await database.start()
    try:
        async with asyncio.timeout(20):
            while not database.check().ok:  # noqa: ASYNC110 - the pool connects in the background
                await asyncio.sleep(0.05)
        yield database
    finally:
        await database.close()


async def run() -> list[Row]:
    """A row each; nothing to compare with offers the same behind an API."""
    use_money_context()
    rows: list[Row] = []
    async with a_database() as url, opened(url) as database:
        rows += await _import(database)
        rows += await _writes(database)
        rows += await _reads(database)
    return rows + await _live()


async def _recorded(
    books: PostgresBooks, ledger: Ledger, name: str, transactions: Sequence[Transaction]
) -> Portfolio:
    async with books.unit(OWNER) as unit:
        made = await unit.create(NewPortfolio(name))
        portfolio = await unit.next_version(made.id, None)
        await ledger.record_many(unit, portfolio, transactions, [])
    return portfolio


def a_file() -> bytes:
    """Buys and sales of twenty assets in our own format."""
    lines = ["timestamp,type,asset,quantity,price,currency,counter_asset,fee,fee_asset,account"]
    for number in range(FILE_ROWS):
        day, second = divmod(number * 600, 86_400)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START_US // 1_000_000 + day * 86_400 + second))
        kind, quantity = ("sell", "0.5") if number // 20 % 3 == 2 else ("buy", "1.25")
        lines.append(f"{at},{kind},A{number % 20},{quantity},{10 + number % 977}.25,USD,,0.1,USD,main")
    return "\n".join(lines).encode()


def _resident_mib(name: str) -> float:
    """`VmRSS`, the memory of this process now, or `VmHWM`, the most it had."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _resident_mib_anew() -> float:
    """The memory of this process now; the kernel looks for the most from here on."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _resident_mib("VmRSS")


async def _import(database: Database) -> list[Row]:
    """A file of the largest size that is meant to be usual; `peak MiB` is above what the process had before."""
    prices, clock, books = Prices([f"A{n}" for n in range(20)]), SystemClock(), PostgresBooks(database)
    ledger = Ledger(books, Worth(prices, prices, prices, clock), prices, clock)
    importer = Importer(books, ledger, prices, prices, prices, clock)
    async with books.unit(OWNER) as unit:
        portfolio = await unit.create(NewPortfolio("imported"))
    request = Request(a_file(), None, True, False, True, Options())

    async def whole() -> Sample:
        before = _resident_mib_anew()
        watch = Stopwatch()
        found = await importer.run(OWNER, portfolio.id, request)
        if found.counts["recorded"] != FILE_ROWS:
            raise RuntimeError(f"not all rows were recorded: {found.counts}")
        return watch.sample(FILE_ROWS, **{"peak MiB": _resident_mib("VmHWM") - before})

    name = f"import of {FILE_ROWS:,} rows"
    return await interleaved("portfolio", "rows/s", [Contender(name, whole)], rounds=1, warmup=0)


async def _writes(database: Database) -> list[Row]:
    prices, clock = Prices(["BTC"]), SystemClock()
    warm, cold = PostgresBooks(database), PostgresBooks(database, legs_kept=0)
    ledgers = {
        books: Ledger(books, Worth(prices, prices, prices, clock), prices, clock) for books in (warm, cold)
    }
    book = [traded(number) for number in range(LONG_BOOK)]
    portfolio = await _recorded(warm, ledgers[warm], "long", book)
    before = iter(range(START_US - 1, 0, -1))
    after = iter(range(START_US + LONG_BOOK * 3_600_000_000, 2**62))

    async def write(books: PostgresBooks, at_us: int) -> None:
        async with books.unit(OWNER) as unit:
            await ledgers[books].record(unit, portfolio.id, bought("BTC", at_us), [])

    async def first() -> Sample:
        return await _timed(lambda: write(warm, next(before)), 5)

    async def unread() -> Sample:
        return await _timed(lambda: write(cold, next(before)), 3)

    async def last() -> Sample:
        return await _timed(lambda: write(warm, next(after)), 10)

    found = []
    for name, work, hold in (
        ("write that replays 10,000, legs in memory", first, "< 50 ms of CPU"),
        ("the same, legs read from the database", unread, ""),
        ("write at the end of that book", last, ""),
    ):
        found += await interleaved(
            "portfolio", "writes/s", [Contender(name, work)], rounds=3, warmup=1, hold=hold
        )
    return found


async def _timed(work: Callable[[], Awaitable[object]], times: int) -> Sample:
    """Several in a row; `ms` is the median of their wall times."""
    took = []
    watch = Stopwatch()
    for _ in range(times):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1_000)
    return watch.sample(times, ms=statistics.median(took))


async def _reads(database: Database) -> list[Row]:
    names = [f"A{number}" for number in range(ASSETS)]
    prices, clock, books = Prices(names), SystemClock(), PostgresBooks(database)
    ledger = Ledger(books, Worth(prices, prices, prices, clock), prices, clock)
    today = time.time_ns() // 1_000 // DAY_US * DAY_US
    transactions = [
        bought(name, today - (YEARS_DAYS - 5 - number * 90) * DAY_US)
        for name in names
        for number in range(20)
    ]
    portfolio = await _recorded(books, ledger, "wide", transactions)
    valuer = Valuer(books, prices, prices, prices, clock)
    performer = Performer(books, prices, prices, prices, clock)

    async def holdings() -> object:
        found = await valuer.holdings(OWNER, portfolio.id)
        return holdings_response(found).model_dump_json()

    async def series() -> object:
        return history_response(await performer.track(OWNER, portfolio.id, Span("all"))).model_dump_json()

    return [
        *await interleaved(
            "portfolio", "reads/s", [Contender("read of 50 assets", lambda: _timed(holdings, 20))], rounds=3,
            hold="< 10 ms",
        ),
        *await interleaved(
            "portfolio", "reads/s", [Contender("5-year daily series of 50 assets", lambda: _timed(series, 5))],
            rounds=3, hold="< 100 ms",
        ),
    ]  # fmt: skip


async def _live() -> list[Row]:
    """Every price moves, every portfolio is valued and published; a second's work at 1 Hz."""
    names = [f"L{number}" for number in range(200)]
    prices, clock = Prices(names), SystemClock()
    bus = RabbitBus(os.environ["RABBITMQ_URL"], service="bench")
    await bus.start()
    if not await bus.wait_connected(20):
        raise RuntimeError("RabbitMQ did not answer")
    live = LiveValues(
        WatchedBooks(names), prices, prices, BusValuePublisher(bus), prices, clock,
        limit=WATCHED, interval_seconds=0.0, epoch=1,
    )  # fmt: skip
    live.watch(range(1, WATCHED + 1), 3_600)
    seq = iter(range(2, 1_000))

    async def second() -> Sample:
        prices.move(next(seq))
        watch = Stopwatch()
        return watch.sample(await live.step())

    try:
        for _ in range(-(-WATCHED // LOAD_AT_ONCE)):
            await live.step()
        return await interleaved(
            "portfolio", "values/s", [Contender("live values of ten assets, published", second)], rounds=3,
            hold=">= 10,000 a second on a core",
        )  # fmt: skip
    finally:
        await bus.close()
