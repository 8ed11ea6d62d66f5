"""Builders of contract values for tests: each gives a whole, plausible value, and a test names only what it is about."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.ticks import Quote, ReferencePrice, TickBatch, Trade
from cryptopulse.common.contracts.values import CONSOLIDATED, Side

START_US = 1_700_000_000_000_000
"""2023-11-14 22:13:20 UTC in microseconds: the time of every built value unless a test gives another."""

DELAY_US = 12_000
"""How much later than the venue's clock our own is in built values."""

Number = Decimal | str | int


def a_trade(
    symbol: str = "BTC-USDT",
    *,
    price: Number = "67000",
    size: Number = "0.5",
    trade_id: int = 1,
    side: Side = "buy",
    event_us: int = START_US,
    received_us: int | None = None,
    flags: int = 0,
) -> Trade:
    """A trade; received `DELAY_US` after the venue's time unless said otherwise."""
    return Trade(
        symbol=symbol,
        trade_id=trade_id,
        price=Decimal(price),
        size=Decimal(size),
        side=side,
        event_us=event_us,
        received_us=event_us + DELAY_US if received_us is None else received_us,
        flags=flags,
    )


def trades(
    prices: Iterable[Number],
    symbol: str = "BTC-USDT",
    *,
    first_id: int = 1,
    start_us: int = START_US,
    step_us: int = 1_000_000,
    size: Number = "0.5",
) -> list[Trade]:
    """Trades at the given prices, with rising ids, `step_us` apart."""
    return [
        a_trade(
            symbol, price=price, size=size, trade_id=first_id + index, event_us=start_us + index * step_us
        )
        for index, price in enumerate(prices)
    ]


def a_quote(
    symbol: str = "BTC-USDT",
    *,
    bid: Number = "66999.5",
    ask: Number = "67000.5",
    bid_size: Number = "1.2",
    ask_size: Number = "0.8",
    event_us: int = START_US,
    received_us: int | None = None,
) -> Quote:
    """Best bid and ask."""
    return Quote(
        symbol=symbol,
        bid=Decimal(bid),
        bid_size=Decimal(bid_size),
        ask=Decimal(ask),
        ask_size=Decimal(ask_size),
        event_us=event_us,
        received_us=event_us + DELAY_US if received_us is None else received_us,
    )


def a_reference_price(
    coin_id: str = "bitcoin",
    symbol: str = "BTC-USD",
    *,
    price: Number = "67010",
    updated_us: int = START_US,
    received_us: int | None = None,
    **more: Any,
) -> ReferencePrice:
    """A price of CoinGecko."""
    return ReferencePrice(
        coin_id=coin_id,
        symbol=symbol,
        price=Decimal(price),
        updated_us=updated_us,
        received_us=updated_us + DELAY_US if received_us is None else received_us,
        **more,
    )


def a_tick_batch(
    trades: Iterable[Trade] = (),
    quotes: Iterable[Quote] = (),
    *,
    venue: str = "binance",
    shard: int = 0,
    epoch: int = 1,
    seq: int = 1,
    sent_us: int = START_US + 2 * DELAY_US,
    **more: Any,
) -> TickBatch:
    """A batch of one venue and shard; with one trade when nothing is given."""
    given_trades, given_quotes = list(trades), list(quotes)
    if not given_trades and not given_quotes and not more.get("references"):
        given_trades = [a_trade()]
    return TickBatch(
        venue=venue,
        shard=shard,
        epoch=epoch,
        seq=seq,
        sent_us=sent_us,
        trades=given_trades,
        quotes=given_quotes,
        **more,
    )


def a_candle(
    symbol: str = "BTC-USDT",
    *,
    source: str = CONSOLIDATED,
    interval: Interval = "1m",
    open_time: int = START_US // 60_000_000 * 60_000,
    open: Number = "67000",  # noqa: A002 - the field's name
    high: Number | None = None,
    low: Number | None = None,
    close: Number | None = None,
    volume: Number = "10",
    **more: Any,
) -> Candle:
    """A closed bar; flat at `open` unless other prices are given."""
    first = Decimal(open)
    last = first if close is None else Decimal(close)
    top = max(first, last) if high is None else Decimal(high)
    bottom = min(first, last) if low is None else Decimal(low)
    amount = Decimal(volume)
    fields: dict[str, Any] = {
        "quote_volume": amount * last,
        "trades": 20,
        "taker_buy_volume": amount / 2,
        **more,
    }
    return Candle(
        symbol=symbol,
        source=source,
        interval=interval,
        open_time=open_time,
        open=first,
        high=top,
        low=bottom,
        close=last,
        volume=amount,
        **fields,
    )


def a_price_update(
    symbol: str = "BTC-USD",
    *,
    source: str = CONSOLIDATED,
    price: Number = "67000",
    epoch: int = 1,
    seq: int = 1,
    event_us: int = START_US,
    received_us: int | None = None,
    **more: Any,
) -> PriceUpdate:
    """The newest price of a symbol; its extremes are the price itself unless given."""
    value = Decimal(price)
    fields: dict[str, Any] = {"low": value, "high": value, **more}
    return PriceUpdate(
        symbol=symbol,
        source=source,
        price=value,
        epoch=epoch,
        seq=seq,
        event_us=event_us,
        received_us=event_us + DELAY_US if received_us is None else received_us,
        **fields,
    )
