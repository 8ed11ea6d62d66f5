"""The bounded way to the bus, and history on it: what is sent, kept and conflated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest

from cryptopulse.common.clock import Clock, ManualClock, SystemClock
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.ticks import Quote, TickBatch, Trade
from cryptopulse.common.contracts.topics import Topic
from cryptopulse.common.errors import BusUnavailable, Invalid, NotFound, StoreUnavailable, UpstreamUnavailable
from cryptopulse.ingestor.application.backfill import Backfill, HistoryDepth
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.publish import FLUSH_TICKS, ShardPublisher, TickTopics
from cryptopulse.ingestor.application.window import RECENT_BATCHES, RECENT_SECONDS
from cryptopulse.ingestor.domain.buffering import TickBuffer
from cryptopulse.ingestor.domain.clock_offset import ClockOffset
from cryptopulse.ingestor.domain.history import Covered, Series

AT = 1_700_000_000_000_000


def a_trade(n: int, symbol: str = "BTC-USDT", *, price: int = 100, event_us: int | None = None) -> Trade:
    return Trade(
        symbol, n, Decimal(price + n), Decimal(2), "buy" if n % 2 else "sell", event_us or AT + n, AT + n
    )


def a_quote(bid: str, symbol: str = "BTC-USDT", ask: str = "200") -> Quote:
    return Quote(symbol, Decimal(bid), Decimal(1), Decimal(ask), Decimal(1), AT, AT)


class FakeBus:
    """Keeps what is published; away for as many calls as told; a `held` confirm is told by the test."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, str, list[str]]] = []
        self.ids: list[str | None] = []
        self.away = 0
        self.connections = 1
        self.slow = 0.0
        self.holds = False
        self.held: list[Callable[[bool], None]] = []

    async def publish(
        self,
        topic: Topic,
        message: Message,
        *,
        key: str,
        cc: Sequence[str] = (),
        message_id: str | None = None,
        headers: Mapping[str, Any] | None = None,
        on_settled: Callable[[bool], None] | None = None,
    ) -> None:
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.away:
            self.away -= 1
            raise BusUnavailable("away")
        self.sent.append((topic.name, message, key, list(cc)))
        self.ids.append(message_id)
        if on_settled is not None and self.holds:
            self.held.append(on_settled)
        elif on_settled is not None:
            on_settled(True)

    @property
    def batches(self) -> list[TickBatch]:
        return [message for name, message, _, _ in self.sent if name == "ticks"]


def a_publisher(
    bus: FakeBus, *, limit: int = 5_000, topics: str = "all", shard: int = 0, clock: Clock | None = None
) -> ShardPublisher:
    return ShardPublisher(
        bus,
        clock or SystemClock(),
        venue="binance",
        shard=shard,
        part="1/1",
        limit=limit,
        flush_seconds=0.005,
        topics=TickTopics.parse(topics),
        simulated=False,
        offset=ClockOffset(),
    )


def test_beyond_the_limit_trades_fold_into_bars_of_their_minute_and_nothing_is_uncounted() -> None:
    buffer = TickBuffer(2)
    trades = [a_trade(n) for n in range(1, 6)] + [
        a_trade(6, event_us=AT + 60_000_000),
        a_trade(7, "ETH-USDT"),
    ]
    for trade in trades:
        buffer.add_trade(trade)
    taken = buffer.take(10)
    assert [t.trade_id for t in taken.trades] == [1, 2]
    bars = {(b.symbol, b.first_id): b for b in taken.conflated}
    assert set(bars) == {("BTC-USDT", 3), ("BTC-USDT", 6), ("ETH-USDT", 7)}
    bar = bars["BTC-USDT", 3]
    assert (bar.last_id, bar.trades, bar.open, bar.high, bar.low, bar.close) == (
        5, 3, Decimal(103), Decimal(105), Decimal(103), Decimal(105),
    )  # fmt: skip
    assert (bar.volume, bar.taker_buy_volume, bar.quote_volume) == (Decimal(6), Decimal(4), Decimal(624))
    assert buffer.conflated_trades == 5
    buffer.add_trade(a_trade(8))
    assert [t.trade_id for t in buffer.take(10).trades] == [8]


def test_bars_wait_for_the_trades_before_them() -> None:
    buffer = TickBuffer(3)
    for n in range(1, 7):
        buffer.add_trade(a_trade(n))
    first = buffer.take(2)
    assert ([t.trade_id for t in first.trades], first.conflated) == ([1, 2], [])
    buffer.add_trade(a_trade(7))
    second = buffer.take(2)
    assert [t.trade_id for t in second.trades] == [3]
    assert [(b.first_id, b.last_id) for b in second.conflated] == [(4, 7)]


async def run_for(publisher: ShardPublisher, seconds: float) -> None:
    task = asyncio.create_task(publisher.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_buffers_of_a_process_wake_together_within_the_flush_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    wakes: list[float] = []
    now = 1_000.0001
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop, "call_at", lambda when, *_: wakes.append(when))
    for step in range(4):
        now = 1_000.0001 + step * 0.001
        a_publisher(FakeBus(), shard=step).add_trade(a_trade(1))
    assert len(set(wakes)) == 1
    assert now < wakes[0] <= 1_000.0001 + 0.005


async def test_a_batch_leaves_at_512_ticks_or_after_the_flush_time_in_order() -> None:
    bus = FakeBus()
    publisher = a_publisher(bus)
    publisher.epoch = 7
    for n in range(1, FLUSH_TICKS + 11):
        publisher.add_trade(a_trade(n))
    await run_for(publisher, 0.05)
    assert [len(batch.trades) for batch in bus.batches] == [FLUSH_TICKS, 10]
    assert [t.trade_id for batch in bus.batches for t in batch.trades] == list(range(1, FLUSH_TICKS + 11))
    assert [(batch.seq, batch.epoch, batch.shard) for batch in bus.batches] == [(1, 7, 0), (2, 7, 0)]
    assert bus.sent[0][2] == "batch.0.binance"


async def test_trades_of_a_symbol_are_numbered_on_over_batches_and_what_leaves_again_keeps_them() -> None:
    bus = FakeBus()
    bus.away = 1
    publisher = a_publisher(bus)
    for n in range(1, FLUSH_TICKS + 11):
        publisher.add_trade(a_trade(n, "ETH-USDT" if n % 4 == 0 else "BTC-USDT"))
    await run_for(publisher, 0.2)
    for symbol in ("BTC-USDT", "ETH-USDT"):
        numbers = []
        for batch in bus.batches:
            mine = [trade for trade in batch.trades if trade.symbol == symbol]
            numbers += list(range(batch.offsets[symbol], batch.offsets[symbol] + len(mine)))
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 100


async def test_what_was_conflated_is_numbered_after_the_trades_before_it() -> None:
    bus = FakeBus()
    publisher = a_publisher(bus)
    publisher.buffer = TickBuffer(3)
    for n in range(1, 6):
        publisher.add_trade(a_trade(n))
    publisher.add_trade(a_trade(6, "ETH-USDT"))
    await run_for(publisher, 0.05)
    publisher.add_trade(a_trade(7))
    await run_for(publisher, 0.05)
    first, second = bus.batches
    assert [(bar.symbol, bar.first_id, bar.last_id) for bar in first.conflated] == [
        ("BTC-USDT", 4, 5),
        ("ETH-USDT", 6, 6),
    ]
    assert (first.offsets, second.offsets) == ({"BTC-USDT": 1, "ETH-USDT": 1}, {"BTC-USDT": 5})


@pytest.mark.parametrize(
    ("topics", "keys"),
    [
        ("all", ["tick.binance.BTC-USDT", "tick.binance.ETH-USDT"]),
        ("none", []),
        ("eth-usdt, XRP-USD", ["tick.binance.ETH-USDT"]),
    ],
)
async def test_symbol_keys_are_sent_for_whom_the_setting_says(topics: str, keys: list[str]) -> None:
    bus = FakeBus()
    publisher = a_publisher(bus, topics=topics)
    publisher.add_trade(a_trade(1, "ETH-USDT"))
    publisher.add_trade(a_trade(2))
    await run_for(publisher, 0.03)
    assert bus.sent[0][3] == keys


async def test_a_bus_that_is_away_loses_nothing_within_the_bound() -> None:
    bus = FakeBus()
    bus.away = 3
    publisher = a_publisher(bus)
    task = asyncio.create_task(publisher.run())
    for n in range(1, 1_500):
        publisher.add_trade(a_trade(n))
    await asyncio.sleep(0.6)
    task.cancel()
    assert [t.trade_id for batch in bus.batches for t in batch.trades] == list(range(1, 1_500))
    assert [batch.seq for batch in bus.batches] == list(range(1, len(bus.batches) + 1))


async def test_what_is_not_confirmed_leaves_again_before_anything_newer_under_its_own_id() -> None:
    bus = FakeBus()
    publisher = a_publisher(bus)
    bus.holds = True
    task = asyncio.create_task(publisher.run())
    for n in range(1, 2 * FLUSH_TICKS + 1):
        publisher.add_trade(a_trade(n))
    await asyncio.sleep(0.05)
    assert (len(bus.held), publisher.added, publisher.settled) == (2, 1_024, 0)
    (first, second), bus.held = bus.held, []
    second(True)
    assert publisher.settled == 0
    first(False)
    publisher.add_trade(a_trade(5_000))
    await asyncio.sleep(0.1)
    bus.held.pop(0)(True)
    assert publisher.settled == 1_024
    bus.held.pop()(True)
    task.cancel()
    assert [batch.seq for batch in bus.batches] == [1, 2, 1, 3]
    assert bus.ids[2] == bus.ids[0]
    assert len(set(bus.ids)) == 3
    assert publisher.settled == publisher.added == 1_025


async def test_a_new_connection_brings_the_trades_of_the_last_second_again_without_their_quotes() -> None:
    bus, clock = FakeBus(), ManualClock()
    publisher = a_publisher(bus, clock=clock)
    task = asyncio.create_task(publisher.run())
    for n in (1, 2, 3):
        publisher.add_trade(a_trade(n))
        publisher.add_quote(a_quote(str(100 + n)))
        await asyncio.sleep(0.15)
        clock.advance(0.7)
    bus.connections += 1
    publisher.add_trade(a_trade(4))
    await asyncio.sleep(0.05)
    task.cancel()
    sent = [[t.trade_id for t in batch.trades] for batch in bus.batches if batch.trades]
    assert sent == [[1], [2], [3], [2], [3], [4]]
    assert not bus.batches[-2].quotes
    assert bus.batches[-2].seq < bus.batches[-1].seq


async def test_what_another_replica_took_over_never_leaves_again() -> None:
    bus = FakeBus()
    publisher = a_publisher(bus)
    bus.away, bus.slow = 1, 0.1
    task = asyncio.create_task(publisher.run())
    publisher.add_trade(a_trade(1))
    await asyncio.sleep(0.05)
    publisher.discard()
    assert publisher.settled == publisher.added == 1
    publisher.add_trade(a_trade(2))
    await asyncio.sleep(0.5)
    task.cancel()
    assert [t.trade_id for batch in bus.batches for t in batch.trades] == [2]
    assert publisher.settled == publisher.added == 2


async def test_batches_behind_a_long_outage_are_bounded_and_confirmed_ones_forgotten() -> None:
    bus, clock = FakeBus(), ManualClock()
    publisher = a_publisher(bus, clock=clock)
    task = asyncio.create_task(publisher.run())
    for n in range(1, 400):
        publisher.add_trade(a_trade(n))
        publisher._wake.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(publisher._window._sent) <= RECENT_BATCHES
    clock.advance(RECENT_SECONDS + 0.1)
    publisher.add_trade(a_trade(400))
    await asyncio.sleep(0.05)
    task.cancel()
    assert len(publisher._window._sent) == 1
    assert publisher.settled == 400


async def test_quotes_keep_the_newest_and_leave_ten_times_a_second() -> None:
    bus = FakeBus()
    publisher = a_publisher(bus)
    task = asyncio.create_task(publisher.run())
    for n in range(60):
        publisher.add_quote(a_quote(str(100 + n)))
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.15)
    task.cancel()
    sent = [quote.bid for batch in bus.batches for quote in batch.quotes]
    assert 2 <= len(sent) <= 6
    assert sent[-1] == Decimal(159)


async def test_a_crossed_book_and_a_time_far_ahead_are_refused_and_kept_to_look_at() -> None:
    bus = FakeBus()
    publisher = a_publisher(bus)
    ingest = Ingest("binance", ManualClock(), [publisher], hold_us=0, shards=1)
    ingest.quote(a_quote("201"))
    ingest.trade(a_trade(1))
    ingest.trade(a_trade(2, event_us=AT + 86_400_000_000))
    ingest.trade(a_trade(2))
    assert [(q.reason, q.detail.split()[0]) for q in ingest.quarantine] == [
        ("bad_number", "BTC-USDT:"),
        ("bad_time", "BTC-USDT"),
    ]
    assert [t.trade_id for t in publisher.buffer.take(9).trades] == [1, 2]


class FakeVenue:
    """A venue with hourly candles since an hour, that fails as often as told."""

    name = "v"
    intervals = frozenset({"1h"})
    rows_per_page = 10

    def __init__(self, since_ms: int, fails: int = 0) -> None:
        self.since_ms = since_ms
        self.fails = fails
        self.asked: list[tuple[int, int]] = []

    def native_by_rule(self, symbol: str) -> str:
        return symbol

    async def candles(
        self, native: str, symbol: str, interval: Any, from_ms: int, to_ms: int
    ) -> list[Candle]:
        if self.fails:
            self.fails -= 1
            raise UpstreamUnavailable("busy", retry_after_seconds=0.001)
        self.asked.append((from_ms, to_ms))
        one = Decimal(1)
        return [
            Candle(symbol, "v", interval, at, one, one, one, one, one, one, 1, one)
            for at in range(max(from_ms, self.since_ms), to_ms, 3_600_000)
        ]


HOUR = 3_600_000
NOW = 472_223 * HOUR


async def work(backfill: Backfill, seconds: float = 0.2) -> None:
    task = asyncio.create_task(backfill.run("v", {}, lambda: None))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class FakeMarks:
    """Marks in memory; away when told."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Covered] = {}
        self.away = False
        self.on_save: Callable[[], object] = bool

    async def load(self, venue: str) -> dict[tuple[str, str], Covered]:
        if self.away:
            raise StoreUnavailable("away")
        return dict(self.kept)

    async def save(self, venue: str, symbol: str, interval: str, covered: Covered) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.kept[symbol, interval] = covered
        self.on_save()


def a_backfill(venue: FakeVenue, bus: FakeBus, marks: FakeMarks | None = None, *, now: int = NOW) -> Backfill:
    fake: Any = venue
    depth = HistoryDepth(0, 2, 0)
    return Backfill(
        [fake], bus, ManualClock(now), depth, marks=marks or FakeMarks(), shards=4, simulated=True
    )


async def test_history_goes_on_after_a_restart_where_the_bus_had_confirmed_it() -> None:
    bus, venue, marks = FakeBus(), FakeVenue(0), FakeMarks()
    first = a_backfill(venue, bus, marks)
    first.first_sight("v", ["BTC-USD"])
    marks.on_save = lambda: setattr(bus, "away", 10**6 if len(bus.sent) == 2 else 0)
    await work(first, 0.05)
    assert marks.kept == {("BTC-USD", "1h"): Covered(((NOW - 20 * HOUR, NOW),))}
    bus.away = 0
    venue.asked.clear()
    again = a_backfill(venue, bus, marks, now=NOW + 3 * HOUR)
    again.first_sight("v", ["BTC-USD"])
    await work(again, 0.3)
    day = NOW - 45 * HOUR
    assert venue.asked[0] == (NOW - 7 * HOUR, NOW + 3 * HOUR)
    assert venue.asked[1:] == [
        (NOW - 30 * HOUR, NOW - 20 * HOUR), (NOW - 40 * HOUR, NOW - 30 * HOUR), (day, NOW - 40 * HOUR),
    ]  # fmt: skip
    assert [message.final for _, message, _, _ in bus.sent[-4:]] == [False, False, False, True]
    progress = again.progress("v")
    assert progress is not None
    assert (progress.series_total, progress.series_done) == (1, 1)
    venue.asked.clear()
    third = a_backfill(venue, bus, marks, now=NOW + 3 * HOUR)
    third.first_sight("v", ["BTC-USD"])
    third.ask(Series("v", "ETH-USD", "1h", NOW - 5 * HOUR, NOW, "request"))
    await work(third)
    assert venue.asked == [(NOW - 5 * HOUR, NOW)]


async def test_without_the_store_history_is_fetched_all_the_same() -> None:
    bus, venue, marks = FakeBus(), FakeVenue(0), FakeMarks()
    marks.away = True
    backfill = a_backfill(venue, bus, marks)
    backfill.first_sight("v", ["BTC-USD"])
    await work(backfill)
    assert len(venue.asked) == 5


def test_covered_ranges_join_and_are_bounded() -> None:
    covered = Covered().and_also(10, 20).and_also(30, 40)
    assert (covered.below(40), covered.below(35), covered.below(30), covered.below(25)) == (30, 30, 30, 25)
    assert covered.and_also(20, 30) == Covered(((10, 40),))
    assert Covered.parse(str(covered)) == covered
    assert Covered.parse("x:1,5:2,7:9,") == Covered(((7, 9),))
    many = Covered()
    for n in range(100):
        many = many.and_also(n * 10, n * 10 + 5)
    assert len(many.ranges) == 8
    assert many.below(995) == 990


async def test_history_is_fetched_newest_first_through_failures_and_stops_where_the_venue_has_no_more() -> (
    None
):
    bus, venue = FakeBus(), FakeVenue(NOW - 15 * HOUR, fails=2)
    bus.away = 1
    backfill = a_backfill(venue, bus)
    backfill.first_sight("v", ["BTC-USD"])
    backfill.first_sight("v", ["BTC-USD"])
    await work(backfill, 0.8)
    pages: list[HistoryBatch] = [message for _, message, _, _ in bus.sent]
    assert [(p.to_ms - p.from_ms) // HOUR for p in pages] == [10, 10, 10, 10, 8]
    assert [len(p.candles) for p in pages] == [10, 5, 0, 0, 0]
    assert [p.final for p in pages] == [False, False, False, False, True]
    assert pages[-1].missing_before_ms == pages[-1].to_ms
    assert all(candle.simulated for p in pages for candle in p.candles)
    progress = backfill.progress("v")
    assert progress is not None
    assert (progress.series_total, progress.series_done, progress.candles) == (1, 1, 15)


async def test_the_same_series_waits_once_and_a_wider_one_replaces_it() -> None:
    venue = FakeVenue(0)
    backfill = a_backfill(venue, FakeBus())
    narrow = Series("v", "BTC-USD", "1h", NOW - 5 * HOUR, NOW, "request")
    wide = Series("v", "BTC-USD", "1h", NOW - 8 * HOUR, NOW, "hole")
    assert [backfill.ask(narrow), backfill.ask(narrow), backfill.ask(wide)] == [True, False, True]
    await work(backfill)
    assert venue.asked == [(NOW - 8 * HOUR, NOW)]
    with pytest.raises(NotFound):
        backfill.ask(Series("x", "BTC-USD", "1h", 0, HOUR))
    with pytest.raises(Invalid):
        backfill.ask(Series("v", "BTC-USD", "1m", 0, HOUR))
