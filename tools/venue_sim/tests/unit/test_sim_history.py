"""The deterministic past: the same for the same seed, gapless, and folding exactly."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from tools.venue_sim.market import bars
from tools.venue_sim.market.history import History, HistoryCache
from tools.venue_sim.market.instruments import BINANCE, COINBASE, KRAKEN, Instrument, default_instruments
from tools.venue_sim.market.prices import PriceModel, _reverting

DAY = 20_000  # 2024-10-04


def instrument(venue: str = BINANCE, symbol: str = "BTC-USDT") -> Instrument:
    return next(one for one in default_instruments(venue, extra=2) if one.symbol == symbol)


def history(seed: int = 7, venue: str = BINANCE, symbol: str = "BTC-USDT") -> History:
    return History(PriceModel(seed), instrument(venue, symbol), HistoryCache())


def by_hand(trades: list[tuple[int, int, int, int, bool]], width_ms: int) -> dict[int, dict[str, Any]]:
    """Candles computed in the plainest way, with exact integers."""
    found: dict[int, dict[str, Any]] = {}
    for made, price, size, at_us, sold in trades:
        start = at_us // 1000 // width_ms * width_ms
        bar = found.setdefault(
            start,
            {"o": price, "h": price, "l": price, "c": price, "v": 0, "q": 0, "n": 0, "bv": 0, "f": made},
        )
        bar["h"], bar["l"], bar["c"] = max(bar["h"], price), min(bar["l"], price), price
        bar["v"] += size
        bar["q"] += size * price
        bar["n"] += 1
        bar["bv"] += 0 if sold else size
        bar["last"] = made
    return found


def as_found(rows: bars.Rows) -> dict[int, dict[str, Any]]:
    return {
        int(row[bars.OPEN_TIME]): {
            "o": int(row[bars.OPEN]),
            "h": int(row[bars.HIGH]),
            "l": int(row[bars.LOW]),
            "c": int(row[bars.CLOSE]),
            "v": int(row[bars.VOLUME]),
            "q": bars.quote_volume(row),
            "n": int(row[bars.TRADES]),
            "bv": int(row[bars.BUY_VOLUME]),
            "f": int(row[bars.FIRST_ID]),
            "last": int(row[bars.LAST_ID]),
        }
        for row in rows
    }


def trades_of(past: History, day: int) -> list[tuple[int, int, int, int, bool]]:
    made = past.trades(day)
    columns = (made.ids, made.prices, made.sizes, made.times_us, made.sold)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_the_same_seed_gives_the_same_history_in_any_order_of_asking() -> None:
    first, second = history(), history()

    second.minutes(DAY + 3)
    second.minutes(DAY - 3)

    assert np.array_equal(first.minutes(DAY), second.minutes(DAY))
    assert trades_of(first, DAY) == trades_of(second, DAY)


def test_another_seed_gives_another_history() -> None:
    assert not np.array_equal(history(7).minutes(DAY)[:, bars.CLOSE], history(8).minutes(DAY)[:, bars.CLOSE])


@pytest.mark.parametrize(
    ("venue", "symbol"),
    [
        (BINANCE, "BTC-USDT"),
        (COINBASE, "DOGE-USD"),
        (COINBASE, "SHIB-USD"),
        (KRAKEN, "ETH-EUR"),
        (BINANCE, "X0001-USDT"),
    ],
)
def test_minutes_are_what_their_trades_say(venue: str, symbol: str) -> None:
    past = history(venue=venue, symbol=symbol)

    assert as_found(past.minutes(DAY)) == by_hand(trades_of(past, DAY), bars.MINUTE_MS)


@pytest.mark.parametrize("interval", ["5m", "15m", "1h", "4h", "1d"])
def test_longer_intervals_fold_exactly_from_minutes(interval: str) -> None:
    past = history(venue=COINBASE, symbol="BTC-USD")

    folded = bars.fold(past.minutes(DAY), interval)

    assert as_found(folded) == by_hand(trades_of(past, DAY), bars.INTERVALS_MS[interval])
    assert np.array_equal(bars.fold(past.hours(DAY), "1d"), bars.fold(past.minutes(DAY), "1d"))


def test_ids_and_times_go_on_from_day_to_day_without_a_gap() -> None:
    past = history()
    trades = trades_of(past, DAY) + trades_of(past, DAY + 1)

    assert [trade[0] for trade in trades] == list(range(trades[0][0], trades[0][0] + len(trades)))
    times = [trade[3] for trade in trades]
    assert times == sorted(times)
    assert past.day_of_id(trades[0][0]) == DAY
    assert past.day_of_id(trades[-1][0]) == DAY + 1


def test_majors_trade_every_minute_and_thin_coins_rest() -> None:
    assert len(history().minutes(DAY)) == 1440
    assert len(history(symbol="X0001-USDT").minutes(DAY)) < 1440


def test_prices_of_a_day_join_the_next_day_without_a_jump() -> None:
    model = PriceModel(7)
    for symbol in ("BTC", "DOGE", "EUR"):
        assert model.minute_logs(symbol, DAY)[-1] == pytest.approx(
            model.minute_logs(symbol, DAY + 1)[0], abs=1e-9
        )


def test_live_seconds_run_between_the_history_s_minutes() -> None:
    model = PriceModel(7)
    at_us = (DAY * 1440 + 100) * 60_000_000

    assert math.log(model.usd("BTC", at_us)) == pytest.approx(
        float(model.minute_logs("BTC", DAY)[100]), abs=1e-9
    )
    assert math.log(model.usd("BTC", at_us + 59_999_999)) == pytest.approx(
        float(model.minute_logs("BTC", DAY)[101]), abs=1e-4
    )


def test_the_walk_of_days_is_the_plain_recursion() -> None:
    steps, value, plain = np.random.default_rng(1).standard_normal(640), 0.0, []
    for step in steps.tolist():
        plain.append(value)
        value = 0.9965 * value + step

    assert np.allclose(_reverting(steps, 0.9965), plain, atol=1e-12)


def test_returns_are_correlated_and_volatility_clusters() -> None:
    model = PriceModel(7)
    steps = {
        symbol: np.concatenate([np.diff(model.minute_logs(symbol, DAY + day)) for day in range(10)])
        for symbol in ("BTC", "ETH", "USDT")
    }

    assert np.corrcoef(steps["BTC"], steps["ETH"])[0, 1] > 0.6
    assert abs(np.corrcoef(steps["BTC"], steps["USDT"])[0, 1]) < 0.1
    size = np.abs(steps["BTC"])
    assert np.corrcoef(size[:-1], size[1:])[0, 1] > 0.05


def test_a_day_s_volume_is_about_what_the_asset_turns_over() -> None:
    past, one = history(), instrument()
    row = bars.fold(past.minutes(DAY), "1d")[0]
    turned_over = Decimal(bars.quote_volume(row)) / 10 ** (one.price_decimals + one.size_decimals)

    assert 0.3 < float(turned_over) / one.daily_volume_usd < 3


@pytest.mark.parametrize(
    ("at", "interval", "start"),
    [
        ("2024-08-08T23:59:59.999", "1d", "2024-08-08T00:00:00"),
        ("2024-08-08T12:00:00", "1w", "2024-08-05T00:00:00"),
        ("2024-02-29T12:00:00", "1M", "2024-02-01T00:00:00"),
        ("2024-03-01T00:00:00", "1M", "2024-03-01T00:00:00"),
    ],
)
def test_intervals_start_where_the_calendar_says(at: str, interval: str, start: str) -> None:
    moment = int(np.datetime64(at, "ms").astype(np.int64))
    expected = int(np.datetime64(start, "ms").astype(np.int64))

    assert bars.bucket_start(moment, interval) == expected
    assert bars.bucket_starts(np.array([moment]), interval).tolist() == [expected]
    assert bars.next_bucket(expected, interval) > moment
