"""What candles say of an outage: a consolidated minute is priced by its own time, and complete only where its venues' are."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from cryptopulse.common.contracts.ticks import TickBatch, Trade
from cryptopulse.indicators.application.build_candles import ShardMarket
from cryptopulse.indicators.domain.bars import Bar

MINUTE_US = 60_000_000
START_US = 1_700_000_040_000_000 // (5 * MINUTE_US) * 5 * MINUTE_US
DOWN = range(90, 280)
"""Seconds of which nothing is heard: half of the second minute, two whole ones, and the most of the fifth."""


def an_hour_of(venues: Iterable[str], *, silent: Iterable[str], repaired: Iterable[str]) -> ShardMarket:
    """400 s with a trade a second of 1 BTC at 100 + t/10 on each venue; a silent one is down for `DOWN`.

    What the repaired ones missed comes two seconds after they are back.
    """
    market = ShardMarket(0, 1, lambda _quote, _now: None)
    for second in range(400):
        for venue in venues:
            if venue not in silent or second not in DOWN:
                feed(market, venue, [second], received=second)
            if venue in repaired and second == DOWN.stop + 2:
                feed(market, venue, DOWN, received=second)
        market.close_by_clock(START_US + second * 1_000_000 + 50_000)
    return market


def feed(market: ShardMarket, venue: str, seconds: Iterable[int], *, received: int) -> None:
    trades = [
        Trade(
            "BTC-USD", second, Decimal(1_000 + second) / 10, Decimal(1), "buy", START_US + second * 1_000_000,
            START_US + received * 1_000_000 + 5_000,
        )
        for second in seconds
    ]  # fmt: skip
    market.on_batch(TickBatch(venue=venue, shard=0, epoch=1, seq=1, sent_us=0, trades=trades))


def bars(market: ShardMarket, source: str, interval: str = "1m") -> dict[int, Bar]:
    """The last word on each bar, by minutes since the start."""
    found = {}
    for _, who, event in market.closed:
        if who == source and event.interval == interval:
            found[(event.bar.open_time * 1_000 - START_US) // MINUTE_US] = event.bar
    return found


def shown(found: dict[int, Bar]) -> list[tuple[int, str, str, str, str, int, bool]]:
    return [
        (at, str(bar.open), str(bar.high), str(bar.low), str(bar.close), bar.trades, bar.complete)
        for at, bar in found.items()
    ]


def test_repaired_minutes_have_the_prices_of_their_own_time() -> None:
    market = an_hour_of(["coinbase"], silent=["coinbase"], repaired=["coinbase"])
    assert shown(bars(market, "consolidated")) == shown(bars(market, "coinbase"))
    assert shown(bars(market, "consolidated"))[1:4] == [
        (1, "106", "111.9", "106", "111.9", 60, True),
        (2, "112", "117.9", "112", "117.9", 60, True),
        (3, "118", "123.9", "118", "123.9", 60, True),
    ]


def test_so_have_those_of_several_venues_that_were_all_away() -> None:
    venues = ["coinbase", "kraken"]
    alone = an_hour_of(["coinbase"], silent=[], repaired=[])
    market = an_hour_of(venues, silent=venues, repaired=venues)
    expected = [(*row[:5], 2 * row[5], row[6]) for row in shown(bars(alone, "coinbase"))]
    assert shown(bars(market, "consolidated")) == expected


def test_where_others_were_live_a_repair_brings_only_volume() -> None:
    market = an_hour_of(["coinbase", "kraken"], silent=["kraken"], repaired=[])
    before = bars(market, "consolidated")[1]
    assert (before.trades, before.complete) == (90, False)
    wild = [
        Trade("BTC-USD", n, Decimal(900), Decimal(1), "buy", START_US + n * 1_000_000, START_US + 400_000_000)
        for n in DOWN
    ]
    market.on_batch(TickBatch(venue="kraken", shard=0, epoch=1, seq=1, sent_us=0, trades=wild))
    after = bars(market, "consolidated")[1]
    assert (before.open, before.high, before.low, before.close) == (
        after.open, after.high, after.low, after.close,
    )  # fmt: skip
    assert (after.trades, after.volume, after.complete) == (120, Decimal(120), True)


def test_an_outage_that_nobody_repairs_is_a_hole_between_incomplete_minutes() -> None:
    venues = ["coinbase", "kraken"]
    market = an_hour_of(venues, silent=venues, repaired=[])
    assert [(at, bar.complete) for at, bar in bars(market, "consolidated").items()] == [
        (0, False), (1, False), (4, False), (5, True),
    ]  # fmt: skip
    assert [bar.complete for bar in bars(market, "consolidated", "5m").values()] == [False]


def test_a_minute_that_one_venue_missed_in_part_is_not_complete_until_it_is_repaired() -> None:
    venues = ["coinbase", "kraken"]
    broken = an_hour_of(venues, silent=["kraken"], repaired=[])
    assert not bars(broken, "consolidated")[1].complete
    repaired = an_hour_of(venues, silent=["kraken"], repaired=["kraken"])
    assert bars(repaired, "consolidated")[1].complete
    assert bars(repaired, "consolidated")[1].trades == 120


def test_a_minute_that_one_venue_missed_altogether_is_not_complete_either() -> None:
    market = an_hour_of(["coinbase", "kraken"], silent=["kraken"], repaired=[])
    assert {at: bar.complete for at, bar in bars(market, "consolidated").items()} == {
        0: False, 1: False, 2: False, 3: False, 4: False, 5: True,
    }  # fmt: skip
    assert list(market.to_merge()) == []  # the venue's own history is what is missing


def test_what_could_not_be_counted_for_want_of_a_rate_is_to_be_merged() -> None:
    known = True
    market = ShardMarket(0, 1, lambda _quote, _now: Decimal(1) if known else None)
    for second in range(400):
        known = second not in DOWN
        trade = Trade(
            "BTC-USDT", second, Decimal(100), Decimal(1), "buy", START_US + second * 1_000_000,
            START_US + second * 1_000_000 + 5_000,
        )  # fmt: skip
        market.on_batch(TickBatch(venue="binance", shard=0, epoch=1, seq=1, sent_us=0, trades=[trade]))
        market.close_by_clock(START_US + second * 1_000_000 + 50_000)
    usd = {
        (event.bar.open_time * 1_000 - START_US) // MINUTE_US: event.bar
        for symbol, source, event in market.closed
        if (symbol, source, event.interval) == ("BTC-USD", "consolidated", "1m")
    }
    assert {at: (bar.trades, bar.complete) for at, bar in usd.items()} == {
        0: (60, False), 1: (30, False), 2: (0, False), 3: (0, False), 4: (20, False), 5: (60, True),
    }  # fmt: skip
    assert [(symbol, (at * 1_000 - START_US) // MINUTE_US) for symbol, at in market.to_merge()] == [
        ("BTC-USD", 1), ("BTC-USD", 2), ("BTC-USD", 3), ("BTC-USD", 4),
    ]  # fmt: skip


def test_the_first_trade_after_a_silence_counts_at_once() -> None:
    """Also when the price has been looked at, and found stale, a moment before."""
    market = ShardMarket(0, 1, lambda _quote, _now: None)
    for venue in ("coinbase", "kraken"):
        feed(market, venue, [0], received=0)
    market.price_updates(START_US + 45_000_000)
    assert market.state.targets["BTC-USD"].status == "stale"
    market.state.now_us = START_US + 45_000_000
    feed(market, "coinbase", [45], received=45)
    assert market.state.targets["BTC-USD"].series.minute(START_US // 1_000).trades == 3  # type: ignore[union-attr]  # it is there
    assert market.state.targets["BTC-USD"].spoiled == []


def test_longer_bars_are_complete_again_with_the_last_of_their_minutes() -> None:
    market = an_hour_of(["coinbase"], silent=["coinbase"], repaired=["coinbase"])
    (five,) = bars(market, "coinbase", "5m").values()
    assert not five.complete  # its first minute began amid
    assert five.unsure == 1
    market.closed.clear()
    feed(market, "coinbase", range(400, 540), received=540)
    feed(market, "coinbase", range(545, 660), received=660)
    market.close_by_clock(START_US + 900_000_000)
    assert not bars(market, "coinbase", "5m")[5].complete
    feed(market, "coinbase", range(540, 545), received=661)
    market.close_by_clock(START_US + 901_000_000)
    assert bars(market, "coinbase", "5m")[5].complete
    assert bars(market, "consolidated", "5m")[5].complete
    assert bars(market, "consolidated", "5m")[5].trades == 300


def test_a_state_from_before_keeps_what_it_doubted() -> None:
    """Bars of older snapshots do not say how many of their minutes are in doubt: at least one."""
    market = an_hour_of(["coinbase"], silent=["coinbase"], repaired=[])
    series = market.state.targets["BTC-USD"].series
    packed = msgspec.to_builtins(series.longer["1h"])[:-1]
    old = msgspec.convert(packed, type=Bar)
    assert not old.complete
    series.longer["1h"] = old
    market.closed.clear()
    for second in range(400, 3_100):
        feed(market, "coinbase", [second], received=second)
    market.close_by_clock(START_US + 3_100_000_000)
    (hour,) = bars(market, "consolidated", "1h").values()
    assert not hour.complete
