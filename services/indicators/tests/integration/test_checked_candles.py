"""The venue's own candles judge those built from trades, in Postgres: verified, corrected, and never made poorer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from cryptopulse.common.contracts.candles import Candle, HistoryBatch
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.services import facts_of
from cryptopulse.common.contracts.values import CONSOLIDATED
from cryptopulse.common.database.pool import Database
from cryptopulse.indicators.adapters.candle_repository import CandleRepository
from cryptopulse.indicators.application.store_history import FROM_TICKS, FROM_VENUE, HistoryKeeper
from cryptopulse.indicators.domain.history import derive

MINUTE = 60_000
LONGER: tuple[Interval, ...] = ("5m", "1h", "1d")
START = 1_731_024_000_000
EPOCH = 7


@pytest.fixture
def migrated_url(environ: dict[str, str]) -> str:
    migrate = [sys.executable, "-m", "cryptopulse.indicators", "migrate"]
    subprocess.run(migrate, env=environ, check=True, capture_output=True, timeout=60)
    return environ["DATABASE_URL"]


@pytest.fixture
async def store(migrated_url: str) -> AsyncIterator[CandleRepository]:
    facts = facts_of("indicators")
    database = Database(
        migrated_url, schema=facts.schema, role=facts.role, application_name="test", max_size=2
    )
    await database.start()
    yield CandleRepository(database)
    await database.close()


def minute(number: int, venue: str, **other: Any) -> Candle:
    base = Decimal(100 + number % 3)
    return msgspec.structs.replace(
        Candle(
            "BTC-USD", venue, "1m", START + number * MINUTE, base, base + 2, base - 1, base + 1,
            Decimal(5), Decimal(505), 12, Decimal(2), 100 * number, 100 * number + 11,
        ),
        **other,
    )  # fmt: skip


def told(candle: Candle, **other: Any) -> Candle:
    """As a venue tells it that counts no trades."""
    poor = {"trades": 0, "quote_volume": Decimal("503.3"), "taker_buy_volume": Decimal(0)}
    return msgspec.structs.replace(candle, first_id=None, last_id=None, **poor, **other)


def page(venue: str, rows: list[Candle]) -> HistoryBatch:
    last = rows[-1].open_time + MINUTE
    return HistoryBatch(
        venue=venue, symbol="BTC-USD", interval="1m", from_ms=rows[0].open_time, to_ms=last, candles=rows
    )


def checked(venue: str, outcome: str) -> float:
    labels = {"venue": venue, "outcome": outcome}
    return REGISTRY.get_sample_value("cryptopulse_candles_checked_total", labels) or 0.0


async def stored(store: CandleRepository, venue: str, interval: Interval = "1m") -> list[Candle]:
    return await store.range("BTC-USD", venue, interval, from_ms=START, to_ms=2**60, limit=2_000)


async def test_equal_candles_are_verified_and_keep_what_the_venue_does_not_tell(
    store: CandleRepository,
) -> None:
    ours = [minute(number, "coinbase") for number in range(5)]
    await store.upsert(ours, origin=FROM_TICKS, epoch=EPOCH)
    before = checked("coinbase", "equal")
    keeper = HistoryKeeper(store, EPOCH)
    for _ in range(2):
        assert await keeper.take(page("coinbase", [told(candle) for candle in ours])) == []
    assert checked("coinbase", "equal") - before == 5
    assert checked("coinbase", "different") == 0
    assert await stored(store, "coinbase") == ours


async def test_a_different_candle_is_corrected_counted_and_carried_up(store: CandleRepository) -> None:
    ours = [minute(number, "binance") for number in range(1_440)]
    await store.upsert(ours, origin=FROM_TICKS, epoch=EPOCH)
    for interval in LONGER:
        await store.upsert(derive(ours, interval), origin=FROM_TICKS, epoch=EPOCH)
    theirs = [*ours[:5]]
    theirs[3] = msgspec.structs.replace(
        ours[3], volume=Decimal(6), trades=13, quote_volume=Decimal(606), high=ours[3].high + 50
    )
    keeper = HistoryKeeper(store, EPOCH)
    changed = {(c.candle.source, c.candle.interval): c for c in await keeper.take(page("binance", theirs))}
    assert checked("binance", "different") == 1
    assert checked("binance", "equal") == 4
    fixed = changed["binance", "1m"]
    assert fixed.corrected
    assert (fixed.candle.volume, fixed.candle.trades, fixed.candle.revision) == (Decimal(6), 13, 1)
    assert (await stored(store, "binance"))[3] == fixed.candle
    for interval in LONGER:
        longer = (await stored(store, "binance", interval))[0]
        assert longer.high == theirs[3].high, interval
        assert longer.revision == 1, interval
        assert changed["binance", interval].corrected
    # a late trade of an older view no longer changes what the venue said
    late = msgspec.structs.replace(ours[3], revision=4, volume=Decimal(9))
    assert await store.upsert([late], origin=FROM_TICKS, epoch=EPOCH) == []


async def test_an_incomplete_candle_is_no_judgement_but_is_completed(store: CandleRepository) -> None:
    broken = minute(0, "kraken", complete=False, volume=Decimal(3), trades=7)
    await store.upsert([broken], origin=FROM_TICKS, epoch=EPOCH)
    changed = await HistoryKeeper(store, EPOCH).take(page("kraken", [told(minute(0, "kraken"))]))
    assert checked("kraken", "equal") == checked("kraken", "different") == 0
    assert changed[0].candle.volume == Decimal(5)
    assert (await stored(store, "kraken"))[0].complete


async def test_a_broken_live_minute_of_all_venues_is_replaced_by_a_merged_one_that_counts_no_less(
    store: CandleRepository,
) -> None:
    """An asset's price in USD counts all its pairs while it is live; what is merged knows only those in USD."""
    half = minute(0, CONSOLIDATED, complete=False, volume=Decimal(3), first_id=None, last_id=None)
    of_more_pairs = minute(1, CONSOLIDATED, complete=False, volume=Decimal(50), first_id=None, last_id=None)
    await store.upsert([half, of_more_pairs], origin=FROM_TICKS, epoch=EPOCH)
    theirs = [told(minute(number, "kraken")) for number in (0, 1)]
    changed = await HistoryKeeper(store, EPOCH).take(page("kraken", theirs))
    assert [c.candle.open_time for c in changed if c.candle.source == CONSOLIDATED] == [START]
    first, second = await stored(store, CONSOLIDATED)
    assert (first.complete, first.volume, first.revision) == (True, Decimal(5), 1)
    assert second == of_more_pairs


async def test_what_could_not_be_counted_live_is_merged_from_what_the_venues_stored(
    store: CandleRepository,
) -> None:
    for venue in ("coinbase", "kraken"):
        rows = [minute(number, venue) for number in range(5)]
        await store.upsert([*rows, *derive(rows, "5m")], origin=FROM_TICKS, epoch=EPOCH)
    live = [minute(number, CONSOLIDATED, volume=Decimal(10)) for number in range(5)]
    live[2] = msgspec.structs.replace(live[2], complete=False, volume=Decimal(1))
    await store.upsert([*live, *derive(live, "5m")], origin=FROM_TICKS, epoch=EPOCH)
    changed = await HistoryKeeper(store, EPOCH).merge("BTC-USD", live[2].open_time, live[2].open_time)
    assert [(item.candle.interval, item.candle.volume, item.corrected) for item in changed] == [
        ("1m", Decimal(10), True), ("5m", Decimal(50), True),
    ]  # fmt: skip
    assert all(bar.complete for bar in await stored(store, CONSOLIDATED))


async def test_simulated_and_real_candles_are_not_compared(store: CandleRepository) -> None:
    await store.upsert([minute(0, "nobody", simulated=True)], origin=FROM_TICKS, epoch=EPOCH)
    await HistoryKeeper(store, EPOCH).take(page("nobody", [minute(0, "nobody", volume=Decimal(8))]))
    assert checked("nobody", "different") == 0


async def test_history_in_usd_follows_when_the_rates_history_comes_later(store: CandleRepository) -> None:
    coin = [minute(number, "binance", symbol="BTC-USDT") for number in range(3)]
    rate = [
        minute(number, "coinbase", symbol="USDT-USD", close=Decimal(f"0.99{number}")) for number in range(3)
    ]
    waiting: dict[str, tuple[int, int]] = {}
    keeper = HistoryKeeper(store, EPOCH, waiting)
    batch = msgspec.structs.replace(page("binance", coin), symbol="BTC-USDT")
    await keeper.take(batch)
    assert waiting["BTC-USD|USDT|1m"] == (coin[0].open_time, coin[2].open_time)
    assert await keeper.convert_late() == []
    assert await stored(store, "consolidated") == []

    rates = HistoryKeeper(store, EPOCH)
    await rates.take(msgspec.structs.replace(page("coinbase", rate[1:]), symbol="USDT-USD"))
    found = await HistoryKeeper(store, EPOCH, waiting).convert_late()
    usd = [item.candle for item in found if item.candle.interval == "1m"]
    assert [(bar.open_time, bar.close) for bar in usd] == [
        (bar.open_time, bar.close * close.close) for bar, close in zip(coin[1:], rate[1:], strict=True)
    ]
    assert waiting["BTC-USD|USDT|1m"] == (coin[0].open_time, coin[0].open_time)

    await rates.take(msgspec.structs.replace(page("coinbase", rate[:1]), symbol="USDT-USD"))
    await HistoryKeeper(store, EPOCH, waiting).convert_late()
    assert len(await stored(store, "consolidated")) == 3
    assert "BTC-USD|USDT|1m" not in waiting


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
async def test_history_of_all_pairs_on_all_venues_is_one_price_in_whatever_order_it_comes(
    store: CandleRepository, order: tuple[int, ...]
) -> None:
    """As ticks are: volumes of all together, prices of the one that turned over most."""
    largest = {"volume": Decimal(7), "quote_volume": Decimal(800), "close": Decimal(200)}
    pages = [
        page("coinbase", [minute(number, "coinbase") for number in range(3)]),
        page("kraken", [minute(number, "kraken", volume=Decimal(2)) for number in range(3)]),
        page("binance", [minute(number, "binance", symbol="BTC-USDT", **largest) for number in range(3)]),
        page(
            "coinbase",
            [minute(number, "coinbase", symbol="USDT-USD", close=Decimal("0.9")) for number in range(3)],
        ),
    ]
    waiting: dict[str, tuple[int, int]] = {}
    for index in order:
        keeper = HistoryKeeper(store, EPOCH, waiting)
        symbol = pages[index].candles[0].symbol
        found = await keeper.take(msgspec.structs.replace(pages[index], symbol=symbol))
        found += await keeper.convert_late()
        assert not any(item.corrected for item in found)
    assert not waiting
    for bar in await stored(store, CONSOLIDATED):
        assert (bar.volume, bar.trades, bar.close, bar.revision) == (Decimal(14), 36, Decimal(180), 0)
        assert bar.quote_volume == 2 * Decimal(505) + Decimal(720)


async def test_a_batch_whose_owner_ended_half_way_is_finished_when_it_comes_again(
    store: CandleRepository,
) -> None:
    rows = [minute(number, "binance") for number in range(3)]
    await store.upsert(rows, origin=FROM_VENUE, epoch=EPOCH)
    keeper = HistoryKeeper(store, EPOCH)
    assert await keeper.take(page("binance", rows)) == []
    await keeper.take(page("binance", rows), again=True)
    assert len(await stored(store, "consolidated")) == 3
