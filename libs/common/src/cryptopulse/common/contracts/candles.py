"""Candles (OHLCV bars): closed ones of one shard and interval in one message, and history by the thousand."""

from __future__ import annotations

from decimal import Decimal

from cryptopulse.common.contracts.base import Message, Row
from cryptopulse.common.contracts.intervals import Interval


class Candle(Row):
    """One bar of (symbol, source, interval). `open_time` in ms UTC; `volume` in base, `quote_volume` in quote units.

    `complete` is False while trades of the bar are known to be missing. `revision` rises by 1 with every
    correction of a bar that was closed before. `first_id`/`last_id` are None where trades have no ids.

    Not every venue tells everything of its past candles. `trades` 0 with a `volume` above 0 means: the count is not
    known, and neither is `taker_buy_volume`, which is 0 then. Such a bar's `quote_volume` is estimated as volume x
    (high + low + close) / 3 (Coinbase), or comes from the venue's VWAP (Kraken, which does count). Nothing of this
    makes a bar incomplete: open, high, low, close and volume are the venue's own. Candles of `coingecko`, the source
    for coins that no connected venue trades, have prices only: every volume is 0.
    """

    symbol: str
    source: str
    interval: Interval
    open_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    taker_buy_volume: Decimal
    first_id: int | None = None
    last_id: int | None = None
    closed: bool = True
    complete: bool = True
    revision: int = 0
    simulated: bool = False


class CandleColumns(Row):
    """Stored closed bars of one series, oldest first, between services: a column each, prices and volumes as texts parted by
    blanks. No bars are empty columns.
    """

    open_time: list[int] = []
    open: str = ""
    high: str = ""
    low: str = ""
    close: str = ""
    volume: str = ""
    complete: list[bool] = []


class CandleBatch(Message):
    """Closed candles of one shard and interval, or corrections of them (`revision` > 0).

    `offsets[i]` numbers `candles[i]` within its (symbol, source, interval) and the `epoch`: from 1, by 1.
    """

    shard: int
    epoch: int
    interval: Interval
    candles: list[Candle]
    offsets: list[int] = []


class HistoryBatch(Message):
    """Up to 1,000 backfilled candles of one (venue, symbol, interval), ascending; only closed bars.

    Answers a request for [`from_ms`, `to_ms`); `final` marks the last message for it. `missing_before_ms`
    says that the venue has nothing older.
    """

    venue: str
    symbol: str
    interval: Interval
    from_ms: int
    to_ms: int
    candles: list[Candle]
    final: bool = True
    missing_before_ms: int | None = None
    simulated: bool = False
