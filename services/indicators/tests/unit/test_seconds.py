"""Live seconds: the fold of a minute's seconds is the minute; they close by the venue's clock and are told once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.ticks import Conflated, TickBatch, Trade
from cryptopulse.common.contracts.values import Side
from cryptopulse.common.errors import BusUnavailable
from cryptopulse.indicators.application import shard
from cryptopulse.indicators.application.build_candles import ShardMarket
from cryptopulse.indicators.application.market_state import MarketState
from cryptopulse.indicators.application.shard import ShardWorker
from cryptopulse.indicators.domain.bars import Bar
from cryptopulse.indicators.domain.seconds import MAX_OPEN

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
START_US = 1_700_000_040 * SECOND_US
"""A whole minute."""
START_MS = START_US // 1000
PAIR, LIVE = "BTC-USDT", "binance"


def a_market(state: MarketState | None = None) -> ShardMarket:
    return ShardMarket(0, 1, lambda _quote, _now: Decimal("0.999"), state)


def a_trade(number: int, at_us: int, price: str = "100", size: str = "1", side: Side = "buy") -> Trade:
    return Trade(
        PAIR, number, Decimal(price), Decimal(size), side, START_US + at_us, START_US + at_us + 5_000
    )


def a_batch(*trades: Trade, venue: str = LIVE) -> TickBatch:
    return TickBatch(venue=venue, shard=0, epoch=1, seq=1, sent_us=0, trades=list(trades), clock_offset_us=0)


def seconds_of(market: ShardMarket, source: str = LIVE) -> list[tuple[int, int, int, str]]:
    """(second since the start, revision, trades, close) of what closed."""
    market.close_seconds(None)
    return [
        ((bar.open_time - START_MS) // 1000, bar.revision, bar.trades, str(bar.close))
        for bar in market.state.unpublished_seconds
        if bar.source == source and bar.symbol == PAIR
    ]


Figures = tuple[Decimal, Decimal, Decimal, Decimal, Decimal, Decimal, int, Decimal]


def figures(bar: Bar | Candle) -> Figures:
    return (
        bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume, bar.trades, bar.taker_buy_volume
    )  # fmt: skip


def folded(seconds: Sequence[Candle]) -> Figures:
    """What the seconds of a minute come to; quiet ones say nothing."""
    rows = [bar for bar in sorted(seconds, key=lambda bar: bar.open_time) if bar.trades]
    return (
        rows[0].open,
        max(row.high for row in rows),
        min(row.low for row in rows),
        rows[-1].close,
        sum((row.volume for row in rows), Decimal(0)),
        sum((row.quote_volume for row in rows), Decimal(0)),
        sum(row.trades for row in rows),
        sum((row.taker_buy_volume for row in rows), Decimal(0)),
    )


def by_hand(trades: Sequence[Trade]) -> dict[int, Figures]:
    """The minutes that the trades come to."""
    found: dict[int, list[Trade]] = defaultdict(list)
    for trade in sorted(trades, key=lambda trade: trade.trade_id):
        found[trade.event_us // MINUTE_US * 60_000].append(trade)
    return {
        at: (
            rows[0].price,
            max(row.price for row in rows),
            min(row.price for row in rows),
            rows[-1].price,
            sum((row.size for row in rows), Decimal(0)),
            sum((row.size * row.price for row in rows), Decimal(0)),
            len(rows),
            sum((row.size for row in rows if row.side == "buy"), Decimal(0)),
        )
        for at, rows in found.items()
    }


def arrivals(dice: random.Random, venue: str) -> list[tuple[int, str, Trade]]:
    """Trades of three minutes as they arrive: most at once, some up to 2.4 s late, so in another order."""
    found = []
    seconds = dice.sample(range(180), dice.randrange(1, 60))
    times = sorted(
        dice.choice(seconds) * SECOND_US + dice.randrange(SECOND_US) for _ in range(dice.randrange(2, 160))
    )
    for number, at in enumerate(times, 1):
        delay = dice.randrange(2_400_000) if dice.random() < 0.2 else dice.randrange(120_000)
        price, size = f"{100 + dice.randrange(900) / 100:.2f}", f"{dice.randrange(1, 10**6) / 10**6:.6f}"
        trade = a_trade(number, at, price, size, dice.choice(("buy", "sell")))
        arrived = msgspec.structs.replace(trade, received_us=START_US + at + delay)
        found.append((at + delay, venue, arrived))
    return found


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_the_fold_of_a_minutes_seconds_is_the_minute_late_trades_included(seed: int) -> None:
    dice = random.Random(seed)
    market = a_market()
    arriving = sorted(arrivals(dice, LIVE) + arrivals(dice, "coinbase"), key=lambda row: row[0])
    at, step = 0, 100_000
    while at < 3 * MINUTE_US + 6 * SECOND_US:
        at += step
        for venue in (LIVE, "coinbase"):
            due = [trade for when, who, trade in arriving if who == venue and at - step <= when < at]
            if due:
                market.on_batch(a_batch(*due, venue=venue))
        if dice.random() < 0.5:
            market.close_seconds(START_US + at)
        if dice.random() < 0.1:
            market.close_by_clock(START_US + at)
    market.close_seconds(START_US + at)
    market.close_by_clock(START_US + at)
    seconds: dict[tuple[str, str, int], dict[int, Candle]] = defaultdict(dict)
    for bar in market.state.unpublished_seconds:
        minute = bar.open_time // 60_000 * 60_000
        known = seconds[bar.symbol, bar.source, minute].get(bar.open_time)
        assert known is None or bar.revision == known.revision + 1
        seconds[bar.symbol, bar.source, minute][bar.open_time] = bar
    minutes = {
        (symbol, source, event.bar.open_time): event.bar
        for symbol, source, event in market.closed
        if event.interval == "1m" and event.bar.trades
    }
    assert {who for _, who, _ in minutes} == {LIVE, "coinbase", "consolidated"}
    first = next(trade.trade_id for _, who, trade in arriving if who == LIVE)
    taken = [trade for _, who, trade in arriving if who == LIVE and trade.trade_id >= first]
    assert {at: figures(bar) for (_, who, at), bar in minutes.items() if who == LIVE} == by_hand(taken)
    for place, minute_bar in minutes.items():
        assert folded(list(seconds[place].values())) == figures(minute_bar), place


def test_a_second_waits_for_its_grace_by_the_venues_clock_and_quiet_ones_are_flat() -> None:
    market = a_market()
    market.on_batch(a_batch(a_trade(1, 200_000, "101"), a_trade(2, 900_000, "102")))
    market.close_seconds(START_US + 1_499_999)
    assert seconds_of(market) == []
    market.close_seconds(START_US + 1_500_000)
    assert seconds_of(market) == [(0, 0, 2, "102")]
    market.close_seconds(START_US + 3_500_000)
    assert seconds_of(market)[1:] == [(1, 0, 0, "102"), (2, 0, 0, "102")]
    assert [bar.complete for bar in market.state.unpublished_seconds if bar.source == LIVE] == [
        False, True, True,
    ]  # fmt: skip


def test_a_dead_feed_leaves_a_hole_that_is_never_filled() -> None:
    market = a_market()
    market.on_batch(a_batch(a_trade(1, 0)))
    market.close_seconds(START_US + 1_500_000)
    market.close_seconds(START_US + 40_500_000)
    market.on_batch(a_batch(a_trade(3, 40_100_000)))
    market.close_seconds(START_US + 42_500_000)
    for source in (LIVE, "consolidated"):
        told = seconds_of(market, source)
        assert told == [(0, 0, 1, "100"), (40, 0, 1, "100"), (41, 0, 0, "100")]
    bars = [bar for bar in market.state.unpublished_seconds if bar.symbol == PAIR]
    assert [bar.complete for bar in bars] == [False, False, False, True, False, True]


def test_a_late_trade_corrects_its_second_and_a_later_one_only_its_minute() -> None:
    market = a_market()
    market.on_batch(a_batch(a_trade(1, 100_000), a_trade(3, 1_100_000)))
    market.close_seconds(START_US + 3_600_000)
    market.on_batch(a_batch(a_trade(2, 800_000, "90")))
    assert seconds_of(market)[-1] == (0, 1, 2, "90")
    market.on_batch(a_batch(a_trade(9, 9_000_000)))
    market.close_seconds(START_US + 10_500_000)
    before = len(seconds_of(market))
    market.on_batch(a_batch(a_trade(5, 4_200_000, "80"), a_trade(6, 4_300_000, "80")))
    assert len(seconds_of(market)) == before
    market.on_batch(a_batch(a_trade(10, MINUTE_US)))
    minute = next(event.bar for _, who, event in market.closed if who == LIVE and event.interval == "1m")
    assert (minute.trades, minute.low) == (6, Decimal(80))


def test_missing_numbers_put_the_seconds_before_them_in_doubt() -> None:
    market = a_market()
    market.on_batch(a_batch(a_trade(1, 0), a_trade(2, SECOND_US)))
    market.close_seconds(START_US + 2_500_000)
    market.on_batch(a_batch(a_trade(5, 2_600_000)))
    market.close_seconds(START_US + 3_500_000)
    newest = {bar.open_time: bar for bar in market.state.unpublished_seconds if bar.source == LIVE}
    assert [(bar.revision, bar.complete) for bar in newest.values()] == [(0, False), (1, False), (0, False)]
    market.on_batch(a_batch(a_trade(3, 1_800_000), a_trade(4, 1_900_000)))
    market.close_seconds(None)
    fixed = [bar for bar in market.state.unpublished_seconds if bar.source == LIVE][-1]
    assert (fixed.revision, fixed.trades, fixed.complete) == (2, 3, True)


def test_state_stays_small_even_while_the_clock_stands_still() -> None:
    market = a_market()
    for number in range(1, 300):
        market.on_batch(a_batch(a_trade(number, number * 700_000)))
    series = [target.series for target in market.state.targets.values()]
    series += [venue.series for venue in market.state.venues.values()]
    assert {len(one.seconds.waiting) for one in series} == {MAX_OPEN}
    assert max(len(one.seconds.kept) for one in series) <= 4
    told = seconds_of(market)
    assert [row[0] for row in told] == sorted({number * 7 // 10 for number in range(1, 300)})[:-MAX_OPEN]


def test_conflated_trades_are_of_the_second_in_which_they_ended() -> None:
    row = Conflated(
        symbol=PAIR, first_id=1, last_id=9, trades=9, open=Decimal(1), high=Decimal(3), low=Decimal(1),
        close=Decimal(2), volume=Decimal(9), quote_volume=Decimal(18), taker_buy_volume=Decimal(4),
        first_event_us=START_US, last_event_us=START_US + 2_300_000, received_us=START_US + 2_400_000,
    )  # fmt: skip
    market = a_market()
    market.on_batch(
        TickBatch(venue=LIVE, shard=0, epoch=1, seq=1, sent_us=0, conflated=[row], clock_offset_us=0)
    )
    market.close_seconds(START_US + 3_500_000)
    assert seconds_of(market) == [(2, 0, 9, "2")]


# --- what is told -------------------------------------------------------------------------------------------------


class Outside:
    """Stores, bus and ingestor of a worker."""

    def __init__(self) -> None:
        self.saved: list[bytes] = []
        self.told: list[Candle] = []
        self.held: list[bool] = []
        self.is_fenced = self.is_bus_away = False

    async def load_snapshot(self, _shard: int) -> bytes | None:
        return self.saved[-1] if self.saved else None

    async def load_series(self, _shard: int) -> dict[str, bytes]:
        return {}

    async def save_snapshot(self, _shard: int, _epoch: int, packed: bytes) -> bool:
        if not self.is_fenced:
            self.saved.append(packed)
        return not self.is_fenced

    async def seconds(self, _shard: int, _epoch: int, candles: Sequence[Candle]) -> None:
        if self.is_bus_away:
            raise BusUnavailable("away")
        state = msgspec.msgpack.decode(self.saved[-1], type=MarketState)
        self.held.append(state.unpublished_seconds == list(candles))
        self.told += [bar for bar in candles if bar.source == LIVE]

    def __getattr__(self, _name: str) -> Any:
        async def nothing(*_: Any, **__: Any) -> list[Any]:
            return []

        return nothing


class Message:
    def __init__(self, message: TickBatch) -> None:
        self.message = message


def a_worker(outside: Outside, clock: ManualClock, epoch: int = 1) -> ShardWorker:
    world: Any = outside
    return ShardWorker(
        0, epoch, rate=lambda _asset, _now: None, store=world, latest=world, publisher=world, requests=world,
        clock=clock,
    )  # fmt: skip


async def give(worker: ShardWorker, *trades: Trade) -> None:
    delivery: Any = Message(a_batch(*trades))
    await worker.on_ticks(delivery)


async def opened(outside: Outside, clock: ManualClock, epoch: int = 1) -> ShardWorker:
    worker = a_worker(outside, clock, epoch)
    await worker.open()
    return worker


@pytest.fixture
def outside() -> Outside:
    return Outside()


async def test_a_second_is_told_once_a_snapshot_holds_it(outside: Outside) -> None:
    clock = ManualClock(START_MS - 4_000)
    worker = await opened(outside, clock)
    clock.set_ms(START_MS + 100)
    await give(worker, a_trade(1, 0, "101"))
    clock.advance(1.5)
    await worker.snapshot()
    assert [(bar.open_time, bar.close) for bar in outside.told] == [(START_MS, Decimal(101))]
    await worker.snapshot()
    assert (len(outside.told), outside.held) == (1, [True])
    outside.is_fenced = True
    clock.advance(5)
    await worker.snapshot()
    assert len(outside.told) == 1


async def test_who_takes_over_tells_what_was_saved_and_nothing_with_other_values(outside: Outside) -> None:
    clock = ManualClock(START_MS - 4_000)
    killed = await opened(outside, clock)
    clock.set_ms(START_MS + 100)
    await give(killed, a_trade(1, 0, "101"))
    clock.advance(1.5)
    await killed.snapshot()
    next_one = await opened(outside, clock, epoch=2)
    await give(
        next_one, a_trade(2, 900_000, "99")
    )  # late: before its time nobody would have closed that second
    await next_one.snapshot()
    assert [(bar.open_time, bar.revision, bar.close) for bar in outside.told] == [
        (START_MS, 0, Decimal(101)),
        (START_MS, 0, Decimal(101)),
        (START_MS, 1, Decimal(99)),
    ]


async def test_a_shard_that_is_handed_over_tells_nothing_twice(outside: Outside) -> None:
    clock = ManualClock(START_MS - 4_000)
    first = await opened(outside, clock)
    clock.set_ms(START_MS + 100)
    await give(first, a_trade(1, 0))
    clock.advance(1.5)
    await first.close(lost=False)
    assert len(outside.told) == 1
    second = await opened(outside, clock, epoch=2)
    await second.snapshot()
    clock.advance(4)
    await give(second, a_trade(2, 4_900_000))
    await second.snapshot()
    assert [bar.open_time - START_MS for bar in outside.told] == [0, 1_000, 2_000, 3_000, 4_000]


async def test_while_the_bus_is_away_seconds_wait_and_the_oldest_are_dropped(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "MOST_SECONDS", 4)
    outside.is_bus_away = True
    clock = ManualClock(START_MS - 4_000)
    worker = await opened(outside, clock)
    clock.set_ms(START_MS)
    for second in range(4):
        await give(worker, a_trade(second + 1, second * SECOND_US))
        clock.advance(1)
        await worker.snapshot()
    outside.is_bus_away = False
    await worker.snapshot()
    assert [bar.open_time - START_MS for bar in outside.told] == [1_000, 2_000]


def test_snapshots_come_as_soon_as_a_second_has_closed_for_every_live_venue(outside: Outside) -> None:
    clock = ManualClock(START_MS)
    worker = a_worker(outside, clock)
    worker.market.state.offsets = {LIVE: -80_000, "coinbase": 20_000, "kraken": -900_000}
    worker.market.state.heard_us = {LIVE: clock.now_us() + SECOND_US, "coinbase": clock.now_us() + SECOND_US}
    due = []
    for _ in range(100):
        clock.advance(0.05)
        if worker.is_snapshot_due(1_000):
            due.append(clock.now_ms() - START_MS)
    assert due == [50, 600, 1_600, 2_600, 3_600, 4_600]
