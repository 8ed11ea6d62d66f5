"""The tape: one sequence of trades over past and present, whatever way it is asked."""

from __future__ import annotations

import numpy as np

from tools.venue_sim.market import bars
from tools.venue_sim.market.history import History, HistoryCache
from tools.venue_sim.market.instruments import BINANCE, default_instruments
from tools.venue_sim.market.prices import PriceModel
from tools.venue_sim.market.tape import Tape

NOW_US = (20_000 * 1440 + 615) * 60_000_000 + 33_000_000
LISTED_MS = 19_990 * bars.DAY_MS


def tape(*, live: int = 50, step_us: int = 2_000_000) -> Tape:
    """A tape with history before NOW and `live` trades after it."""
    instrument = default_instruments(BINANCE)[0]
    made = Tape(instrument, History(PriceModel(7), instrument, HistoryCache()))
    made.begin(NOW_US, LISTED_MS)
    for number in range(live):
        made.append(7_000_000 + number, 10 if number % 3 else -10, NOW_US + (number + 1) * step_us)
    return made


def test_ids_run_from_the_past_into_the_present() -> None:
    found = tape()
    page = found.from_id(found.started_id - 40, 80)

    assert [trade[0] for trade in page] == list(range(found.started_id - 40, found.started_id + 40))
    assert page[39][3] <= NOW_US < page[40][3]
    times = [trade[3] for trade in page]
    assert times == sorted(times)


def test_the_newest_reach_back_into_the_past() -> None:
    found = tape(live=3)
    newest = found.latest(500)

    assert len(newest) == 500
    assert newest[-1][0] == found.next_id - 1
    assert [trade[0] for trade in newest] == list(range(newest[0][0], found.next_id))
    assert found.latest(2, before_id=found.started_id)[-1][0] == found.started_id - 1


def test_by_time_over_the_border() -> None:
    found = tape()
    page = found.between(NOW_US - 120_000_000, NOW_US + 10_000_000, 10_000)

    assert page[0][3] >= NOW_US - 120_000_000
    assert page[-1][3] <= NOW_US + 10_000_000
    assert [trade[0] for trade in page] == list(range(page[0][0], page[-1][0] + 1))
    assert found.until(page[-1][3], 5) == page[-5:]


def test_nothing_is_older_than_the_listing() -> None:
    found = tape()
    assert found.from_id(1, 1)[0][3] >= LISTED_MS * 1000


async def test_the_minute_of_the_start_is_past_and_present_together() -> None:
    found = tape(live=10)
    minute_ms = NOW_US // 60_000_000 * 60_000
    row = (await found.rows("1m", minute_ms, minute_ms))[0]

    trades = found.between(minute_ms * 1000, minute_ms * 1000 + 59_999_999, 1000)
    assert int(row[bars.TRADES]) == len(trades)
    assert int(row[bars.OPEN]) == trades[0][1]
    assert int(row[bars.CLOSE]) == trades[-1][1]
    assert int(row[bars.VOLUME]) == sum(trade[2] for trade in trades)
    assert trades[0][0] < found.started_id < trades[-1][0]


async def test_hours_over_the_border_equal_folded_minutes() -> None:
    found = tape(live=500)
    start = NOW_US // 1000 - 26 * bars.HOUR_MS
    end = NOW_US // 1000 + bars.HOUR_MS
    hours = await found.rows("1h", start, end)
    minutes = await found.rows("1m", int(hours[0, bars.OPEN_TIME]), end)

    assert np.array_equal(hours, bars.fold(minutes, "1h"))
    assert len(hours) >= 26


async def test_trimming_forgets_trades_but_neither_candles_nor_totals() -> None:
    kept, trimmed = tape(live=500), tape(live=500)
    trimmed.trim(100)

    assert len(trimmed.prices) == 100
    assert trimmed.next_id == kept.next_id
    assert trimmed.totals_since_start() == kept.totals_since_start()
    window = (NOW_US // 1000 - bars.HOUR_MS, NOW_US // 1000 + bars.HOUR_MS)
    assert np.array_equal(await trimmed.rows("1m", *window), await kept.rows("1m", *window))


def test_a_late_trade_goes_into_the_minute_of_its_own_time() -> None:
    found = tape(live=100)
    before = found.live_minutes()
    found.append(1, 5, NOW_US + 1)
    after = found.live_minutes()

    assert int(after[0, bars.LOW]) == 1
    assert int(after[0, bars.TRADES]) == int(before[0, bars.TRADES]) + 1
    assert np.array_equal(after[1:], before[1:])


def test_ids_start_over_after_a_reset() -> None:
    found = tape()
    found.reset_ids(1)
    found.append(5, 5, NOW_US + 1_000_000_000)

    assert found.latest(10) == [(1, 5, 5, NOW_US + 1_000_000_000, False)]
    assert found.from_id(1, 10) == found.latest(10)
    assert found.totals_since_start()[0] == 51


def test_own_ids_of_a_recording_may_have_holes() -> None:
    found = Tape(default_instruments(BINANCE)[0], None, own_ids=True)
    for made in (10, 11, 15, 16):
        found.append(100, 1, made * 1_000_000, made)

    assert [trade[0] for trade in found.from_id(11, 2)] == [11, 15]
    assert [trade[0] for trade in found.latest(2, before_id=15)] == [10, 11]
    assert found.totals(11, 15)[0] == 2
