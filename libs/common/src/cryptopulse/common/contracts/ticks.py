"""Ticks: trades and quotes of venues, reference prices, in batches of one venue and shard (steps 1-6 of the route)."""

from __future__ import annotations

from decimal import Decimal

from cryptopulse.common.contracts.base import Message, Row
from cryptopulse.common.contracts.values import Side

SNAPSHOT = 1
"""Flag: came with the answer to a subscription, may be older than it."""
BACKFILL = 2
"""Flag: repaired by REST after a gap."""
LATE = 4
"""Flag: its id is below one that was already published."""
AUCTION = 8
"""Flag: not part of the continuous market."""


class Trade(Row):
    """One trade. `trade_id` rises by 1 per (venue, symbol) where the venue numbers trades so; times in microseconds UTC.

    `event_us` is the venue's clock, `received_us` ours. `side` is the taker's.
    """

    symbol: str
    trade_id: int
    price: Decimal
    size: Decimal
    side: Side
    event_us: int
    received_us: int
    flags: int = 0


class Quote(Row):
    """Best bid and ask. `event_us` equals `received_us` where the venue sends no time. Newest wins."""

    symbol: str
    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal
    event_us: int
    received_us: int


class ReferencePrice(Row):
    """A price that is not a market of ours (CoinGecko): fallback only, always labelled. Money in USD."""

    coin_id: str
    symbol: str
    price: Decimal
    updated_us: int
    received_us: int
    change_24h: Decimal | None = None
    change_24h_pct: Decimal | None = None
    market_cap: Decimal | None = None
    volume_24h: Decimal | None = None


class Conflated(Row):
    """What is left of trades that did not fit the bounded buffer: one bar per symbol instead of silent loss.

    Covers trade ids `first_id..last_id`; `volume` in base, `quote_volume` in quote units, `taker_buy_volume` in base.
    """

    symbol: str
    first_id: int
    last_id: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    trades: int
    first_event_us: int
    last_event_us: int
    received_us: int


class TickBatch(Message):
    """Ticks of one venue and one shard, in the order in which they were received.

    `epoch` is the ingestor's lease; a lower one than seen before for the same (venue, part) is refused.
    `seq` rises by 1 per (venue, shard, epoch). `clock_offset_us` is venue clock minus ours, as estimated now.
    `offsets` numbers the first row of each symbol within the epoch, trades first and then what was conflated; those after it
    follow by 1.
    """

    venue: str
    shard: int
    epoch: int
    seq: int
    sent_us: int
    clock_offset_us: int = 0
    simulated: bool = False
    part: str = "1/1"
    trades: list[Trade] = []
    quotes: list[Quote] = []
    references: list[ReferencePrice] = []
    conflated: list[Conflated] = []
    offsets: dict[str, int] = {}
