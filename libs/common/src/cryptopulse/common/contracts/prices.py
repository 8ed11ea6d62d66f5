"""Latest prices: what the owner of a shard publishes and stores, and how a reader judges its age."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.candles import Candle

PriceStatus = Literal["ok", "degraded", "single", "stale", "fallback"]
STALE_AFTER_MS: Final = 30_000
"""A price whose newest input was received longer ago than this is `stale`."""


class ExcludedSource(Message):
    """A source that was seen and not used, and why: `stale`, `outlier`, `rate_stale`, `feed_down`, `unconfirmed_jump`."""

    source: str
    reason: str


class PriceUpdate(Message):
    """The newest price of a symbol from one source (`consolidated` or a venue). Times in microseconds UTC.

    `seq` rises by 1 per (symbol, source) within an `epoch`; `low` and `high` are the extremes since the previous
    update, so that nothing between two updates is unseen. 24 h figures are rolling; None when not known yet.
    """

    symbol: str
    source: str
    price: Decimal
    low: Decimal
    high: Decimal
    epoch: int
    seq: int
    event_us: int
    received_us: int
    status: PriceStatus = "ok"
    bid: Decimal | None = None
    ask: Decimal | None = None
    confidence: Decimal | None = None
    sources_used: list[str] = []
    excluded: list[ExcludedSource] = []
    change_24h_pct: Decimal | None = None
    high_24h: Decimal | None = None
    low_24h: Decimal | None = None
    volume_24h: Decimal | None = None
    simulated: bool = False


class PriceBatch(Message):
    """Newest prices of one shard, and its forming 1m candles (`closed` false, at most one a second each)."""

    shard: int
    epoch: int
    sent_us: int
    prices: list[PriceUpdate] = []
    forming: list[Candle] = []


def age_ms(received_us: int, now_us: int) -> int:
    """How long ago, in ms, the newest input was received; never negative."""
    return max(0, (now_us - received_us) // 1000)


def is_stale(received_us: int, now_us: int) -> bool:
    """True when the newest input is older than `STALE_AFTER_MS`, judged on our clock."""
    return now_us - received_us > STALE_AFTER_MS * 1000
