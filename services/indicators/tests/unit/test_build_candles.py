"""Ticks to candles and prices: exact sums, no doubles, quiet minutes, late trades, one price over venues."""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec

from cryptopulse.common.contracts.ticks import SNAPSHOT, Quote, TickBatch, Trade
from cryptopulse.common.contracts.values import Side
from cryptopulse.indicators.application.build_candles import ShardMarket
from cryptopulse.indicators.application.market_state import MarketState

MINUTE_US = 60_000_000
START_US = 1_700_000_040_000_000 // MINUTE_US * MINUTE_US


def no_rate(_quote: str, _now_us: int) -> Decimal | None:
    return None


def a_market(rate: str | None = "1") -> ShardMarket:
    return ShardMarket(0, 1, no_rate if rate is None else lambda _quote, _now: Decimal(rate))


def a_trade(
    number: int, at_us: int, price: str = "100", size: str = "1", side: Side = "buy", symbol: str = "BTC-USDT"
) -> Trade:
    return Trade(
        symbol, number, Decimal(price), Decimal(size), side, START_US + at_us, START_US + at_us + 5_000
    )


def a_batch(trades: list[Trade], venue: str = "binance", **more: object) -> TickBatch:
    return TickBatch(venue=venue, shard=0, epoch=1, seq=1, sent_us=0, trades=trades, **more)  # type: ignore[arg-type]  # by name


def minutes_of(market: ShardMarket, source: str = "binance") -> list:  # type: ignore[type-arg]  # bars
    return [event.bar for _, who, event in market.closed if who == source and event.interval == "1m"]


def test_candles_equal_an_independent_fold_of_all_trades_whatever_the_batches() -> None:
    dice = random.Random(4)
    trades, at = [], 0
    for number in range(1, 3_001):
        at += dice.randrange(0, 400_000)
        trades.append(
            a_trade(
                number,
                at,
                f"{60000 + dice.randrange(-500, 500) / 100:.2f}",
                f"{dice.randrange(1, 10**8) / 10**8:.8f}",
                dice.choice(("buy", "sell")),
            )
        )
    market = a_market()
    index = 0
    while index < len(trades):
        count = dice.choice((1, 2, 7, 60, 300))
        market.on_batch(
            a_batch(trades[max(0, index - dice.choice((0, 0, 3))) : index + count])
        )  # some come twice
        index += count
    closed = minutes_of(market)
    assert len(closed) >= 9
    for bar in closed:
        mine = [t for t in trades if t.event_us // MINUTE_US * 60_000 == bar.open_time]
        assert (bar.open, bar.close) == (mine[0].price, mine[-1].price)
        assert (bar.high, bar.low) == (max(t.price for t in mine), min(t.price for t in mine))
        assert bar.volume == sum(t.size for t in mine)
        assert bar.quote_volume == sum(t.size * t.price for t in mine)
        assert bar.taker_buy_volume == sum(t.size for t in mine if t.side == "buy")
        assert (bar.trades, bar.first_id, bar.last_id) == (len(mine), mine[0].trade_id, mine[-1].trade_id)
    assert [bar.complete for bar in closed] == [False] + [True] * (len(closed) - 1)


def test_longer_bars_are_the_fold_of_their_minutes() -> None:
    market = a_market()
    for minute in range(31):
        market.on_batch(a_batch([a_trade(minute + 1, minute * MINUTE_US, str(100 + minute % 7), "2")]))
    fives = [e.bar for _, who, e in market.closed if who == "binance" and e.interval == "5m"]
    ones = {bar.open_time: bar for bar in minutes_of(market)}
    for bar in fives[1:]:
        parts = [ones[bar.open_time + k * 60_000] for k in range(5)]
        assert bar.volume == sum(part.volume for part in parts)
        assert (bar.open, bar.close) == (parts[0].open, parts[-1].close)
        assert (bar.high, bar.low) == (max(p.high for p in parts), min(p.low for p in parts))
        assert bar.complete


def test_a_gap_in_the_ids_leaves_the_minute_incomplete_until_it_is_repaired() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0)]))
    market.on_batch(a_batch([a_trade(2, MINUTE_US), a_trade(5, MINUTE_US + 1)]))
    market.on_batch(a_batch([a_trade(6, 2 * MINUTE_US)]))
    assert [bar.complete for bar in minutes_of(market)] == [False, False]
    market.on_batch(a_batch([a_trade(3, MINUTE_US + 1, "90"), a_trade(4, MINUTE_US + 1)]))
    fixed = minutes_of(market)[-1]
    assert (fixed.revision, fixed.complete, fixed.low, fixed.trades) == (1, True, Decimal(90), 4)
    before = len(market.closed)
    market.on_batch(a_batch([a_trade(3, MINUTE_US + 1, "90")]))
    assert len(market.closed) == before


def test_quiet_minutes_close_flat_by_the_venues_clock_while_the_feed_lives() -> None:
    market = a_market()
    offset = -50 * 365 * 86_400_000_000 // 50  # a recording of a year ago
    market.on_batch(a_batch([a_trade(1, 0, "100"), a_trade(2, MINUTE_US, "101")], clock_offset_us=offset))
    heard = market.state.now_us
    market.state.heard_us["binance"] = heard + 4 * MINUTE_US
    now = START_US - offset + 4 * MINUTE_US + 2_500_000
    market.state.heard_us["binance"] = now
    market.close_by_clock(now)
    closed = minutes_of(market)
    assert [bar.open_time - START_US // 1000 for bar in closed] == [0, 60_000, 120_000, 180_000]
    assert [(bar.close, bar.trades) for bar in closed[2:]] == [(Decimal(101), 0)] * 2
    market.on_batch(a_batch([a_trade(3, 3 * MINUTE_US, "99")], clock_offset_us=offset))
    late = minutes_of(market)[-1]
    assert (late.revision, late.open, late.close, late.trades) == (1, Decimal(99), Decimal(99), 1)


def test_trades_that_never_came_put_the_minutes_before_them_in_doubt() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0), a_trade(2, MINUTE_US)], clock_offset_us=0))
    market.state.heard_us["binance"] = START_US + 3 * MINUTE_US + 2_500_000
    market.close_by_clock(START_US + 3 * MINUTE_US + 2_500_000)
    assert [(bar.trades, bar.complete) for bar in minutes_of(market)[1:]] == [(1, True), (0, True)]
    # 3 to 8 were lost on their way: of the second minute, of the quiet one, or of the one that they end.
    market.on_batch(a_batch([a_trade(9, 3 * MINUTE_US), a_trade(10, 4 * MINUTE_US)]))
    newest = {bar.open_time - START_US // 1000: (bar.revision, bar.complete) for bar in minutes_of(market)}
    assert newest == {0: (0, False), 60_000: (1, False), 120_000: (1, False), 180_000: (0, False)}


def test_a_dead_feed_leaves_a_hole_not_flat_minutes() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0), a_trade(2, MINUTE_US)]))
    market.close_by_clock(START_US + 30 * MINUTE_US)
    assert [bar.trades for bar in minutes_of(market)] == [1, 1]


def test_a_late_trade_does_not_complete_the_minute_that_we_came_into() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(10, 1), a_trade(12, 3), a_trade(13, MINUTE_US)]))
    market.on_batch(a_batch([a_trade(11, 2)]))
    first = minutes_of(market)[-1]
    assert (first.revision, first.trades, first.complete) == (1, 3, False)


def test_a_batch_in_which_a_late_trade_comes_last_closes_at_its_newest() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0)]))
    market.on_batch(a_batch([a_trade(2, 1), a_trade(4, 3, "104"), a_trade(3, 2, "103")]))
    market.on_batch(a_batch([a_trade(5, MINUTE_US)]))
    (bar,) = minutes_of(market)
    assert (bar.close, bar.trades, bar.last_id) == (Decimal(104), 4, 4)


def test_a_trade_too_late_for_what_is_at_hand_asks_for_the_venues_candle() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0)]))
    market.on_batch(a_batch([a_trade(number, number * MINUTE_US) for number in range(5, 30)]))
    market.on_batch(a_batch([a_trade(2, MINUTE_US)]))
    assert market.too_late == {("binance", "BTC-USDT", START_US // 1000 + 60_000)}


def test_the_price_in_usd_converts_and_never_assumes_one() -> None:
    market = a_market("0.98")
    market.on_batch(a_batch([a_trade(1, 0, "100")]))
    by_symbol = {(u.symbol, u.source): u for u in market.price_updates(market.state.now_us)}
    assert by_symbol["BTC-USD", "consolidated"].price == Decimal("98.00")
    assert by_symbol["BTC-USD", "consolidated"].status == "single"
    assert by_symbol["BTC-USDT", "consolidated"].price == Decimal(100)
    assert by_symbol["BTC-USDT", "binance"].price == Decimal(100)


def test_without_a_rate_there_is_no_price_in_usd() -> None:
    market = a_market(None)
    market.on_batch(a_batch([a_trade(1, 0, "100")]))
    updates = market.price_updates(market.state.now_us)
    assert {(u.symbol, u.source) for u in updates} == {("BTC-USDT", "consolidated"), ("BTC-USDT", "binance")}


def test_low_and_high_between_two_updates_are_told() -> None:
    market = a_market()
    market.on_batch(
        a_batch([a_trade(1, 0, "100"), a_trade(2, 1, "90"), a_trade(3, 2, "110"), a_trade(4, 3, "101")])
    )
    update = next(u for u in market.price_updates(market.state.now_us) if u.source == "binance")
    assert (update.low, update.high, update.price, update.seq) == (Decimal(90), Decimal(110), Decimal(101), 1)
    market.on_batch(a_batch([a_trade(5, 4, "102")]))
    update = next(u for u in market.price_updates(market.state.now_us) if u.source == "binance")
    assert (update.low, update.high, update.seq) == (Decimal(102), Decimal(102), 2)


def test_a_price_becomes_stale_and_says_so_once() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0, "100")]))
    market.price_updates(market.state.now_us)
    later = market.state.now_us + 31_000_000
    updates = market.price_updates(later)
    assert {update.status for update in updates} == {"stale"}
    assert all(update.price == Decimal(100) for update in updates)
    assert market.price_updates(later + 1) == []


def test_a_batch_of_an_older_owner_of_the_feed_is_refused() -> None:
    market = a_market()
    market.on_batch(TickBatch(venue="binance", shard=0, epoch=5, seq=1, sent_us=0, trades=[a_trade(1, 0)]))
    market.on_batch(TickBatch(venue="binance", shard=0, epoch=4, seq=9, sent_us=0, trades=[a_trade(2, 0)]))
    assert market.refused_batches == 1
    assert market.state.venues["BTC-USDT|binance"].ids.last_id == 1


def test_what_a_venue_traded_before_we_came_is_not_told_at_the_first_price() -> None:
    """Its first answer holds the newest trades, of minutes ago where it is quiet: they are its own bars, not the price of all."""
    market = a_market()
    now_us = START_US + 5 * MINUTE_US + 1_000_000
    old = [a_trade(n, n * MINUTE_US, str(100 + n)) for n in range(1, 5)]
    first = [*old, a_trade(5, 5 * MINUTE_US, "105")]
    market.on_batch(
        a_batch([msgspec.structs.replace(trade, received_us=now_us, flags=SNAPSHOT) for trade in first])
    )
    market.on_batch(a_batch([a_trade(6, 6 * MINUTE_US, "106"), a_trade(7, 7 * MINUTE_US + 5_000_000, "107")]))
    market.close_by_clock(START_US + 8 * MINUTE_US + 10_000_000)
    whole = [(bar.open_time, bar.close) for bar in minutes_of(market, "consolidated")]
    assert whole[0] == ((START_US + 5 * MINUTE_US) // 1_000, Decimal(105))
    assert [close for _, close in whole[:3]] == [Decimal(105), Decimal(106), Decimal(107)]
    assert [bar.close for bar in minutes_of(market)][:4] == [Decimal(100 + n) for n in range(1, 5)]


def test_a_restored_snapshot_goes_on_exactly_as_if_nothing_had_happened() -> None:
    trades = [a_trade(n, n * 7_000_000, str(100 + n % 13), "0.1") for n in range(1, 400)]
    whole, first = a_market(), a_market()
    for trade in trades:
        whole.on_batch(a_batch([trade]))
    for trade in trades[:201]:
        first.on_batch(a_batch([trade]))
    packed = msgspec.msgpack.encode(first.state)
    second = ShardMarket(
        0, 2, lambda _quote, _now: Decimal(1), msgspec.msgpack.decode(packed, type=MarketState)
    )
    for trade in trades[150:]:  # the unacked come again
        second.on_batch(a_batch([trade]))
    assert second.state.venues["BTC-USDT|binance"].ids.duplicates == 51
    second.state.venues["BTC-USDT|binance"].ids.duplicates = 0
    assert msgspec.msgpack.encode(second.state) == msgspec.msgpack.encode(whole.state)
    assert first.closed + second.closed == whole.closed


def test_quotes_move_the_consolidated_price_between_trades() -> None:
    market = a_market()
    market.on_batch(a_batch([a_trade(1, 0, "100", symbol="BTC-USD")], venue="coinbase"))
    quote = Quote(
        "BTC-USD", Decimal("100.9"), Decimal(1), Decimal("101.1"), Decimal(1), START_US + 5, START_US + 6_000
    )
    market.on_batch(TickBatch(venue="coinbase", shard=0, epoch=1, seq=2, sent_us=0, quotes=[quote]))
    update = next(u for u in market.price_updates(market.state.now_us) if u.source == "consolidated")
    assert (update.price, update.bid, update.ask) == (Decimal("101.0"), Decimal("100.9"), Decimal("101.1"))
