"""The catalogue of topics: the one source for topology, AsyncAPI, metric labels and contract tests.

A topic is a message type on an exchange with a routing-key pattern, a version and a delivery class:
`live` (transient, bounded, newest wins, never retried) or `durable` (quorum queues, confirmed, retried, dead-lettered).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from cryptopulse.common.contracts.alerts import AlertEvent
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.candles import CandleBatch, HistoryBatch
from cryptopulse.common.contracts.catalogue import CoinList, InstrumentList
from cryptopulse.common.contracts.feeds import FeedStatus
from cryptopulse.common.contracts.indicators import IndicatorBatch, Signal
from cryptopulse.common.contracts.portfolio import PortfolioChanged, PortfolioValueBatch
from cryptopulse.common.contracts.prices import PriceBatch
from cryptopulse.common.contracts.ticks import TickBatch

Delivery = Literal["live", "durable"]

DEFAULT_SHARDS: Final = 4
SHARD_KEY: Final = b"cryptopulse-29"
"""Chosen so that the ten majors spread 5-5 over two shards, 3-3-2-2 over four and 2-2-1-1-1-1-1-1 over eight."""


@cache
def shard_of(base: str, shards: int = DEFAULT_SHARDS) -> int:
    """The shard of an asset: a stable hash, the same in every process and release."""
    digest = hashlib.blake2b(base.encode(), digest_size=8, key=SHARD_KEY).digest()
    return int.from_bytes(digest, "big") % shards


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `key` is its routing-key pattern with {placeholders}; `convenience_key` is sent in the CC header."""

    name: str
    exchange: str
    key: str
    message: type[Message]
    version: int
    delivery: Delivery
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    ordering_key: str
    description: str
    convenience_key: str | None = None
    live_key: str | None = None
    """Of messages that only streams want, apart from those that consumers of `key` bind."""
    mandatory: bool = False
    """True where a queue must exist: a publish that reaches none fails, so that nothing is lost before the consumer's first start."""

    @property
    def type_name(self) -> str:
        """The value of the AMQP `type` property, e.g. `tick.batch.v1`."""
        return f"{self.name}.v{self.version}"


TICKS = Topic(
    name="ticks",
    exchange="market.ticks",
    key="batch.{shard}.{venue}",
    convenience_key="tick.{venue}.{symbol}",
    message=TickBatch,
    version=1,
    delivery="live",
    producers=("ingestor",),
    consumers=("indicators", "alerts", "gateway"),
    ordering_key="venue and symbol",
    description="Normalised trades, quotes and reference prices of one venue and shard, as received.",
)
PRICES = Topic(
    name="prices",
    exchange="market.prices",
    key="batch.{shard}",
    convenience_key="price.{symbol}",
    message=PriceBatch,
    version=1,
    delivery="live",
    producers=("indicators",),
    consumers=("gateway", "alerts", "portfolio", "indicators"),
    ordering_key="symbol and source",
    description="Newest consolidated and per-venue prices of a shard, at most 10/s per symbol, and forming 1m candles.",
)
CANDLES = Topic(
    name="candles",
    exchange="market.candles",
    key="batch.{interval}.{shard}",
    convenience_key="candle.{interval}.{symbol}",
    live_key="live.{interval}.{shard}",
    message=CandleBatch,
    version=1,
    delivery="durable",
    producers=("indicators",),
    consumers=("gateway", "alerts", "portfolio"),
    ordering_key="symbol, source and interval",
    description="Closed candles of one shard and interval, and corrections of them. Those of 1s are live only: not stored.",
)
HISTORY = Topic(
    name="history",
    exchange="market.history",
    key="backfill.{shard}.{venue}.{symbol}",
    message=HistoryBatch,
    version=1,
    delivery="durable",
    mandatory=True,
    producers=("ingestor",),
    consumers=("indicators",),
    ordering_key="venue, symbol and interval",
    description="Backfilled candles, up to 1,000 a message.",
)
INDICATORS_LIVE = Topic(
    name="indicators.live",
    exchange="market.indicators",
    key="live.{interval}.{shard}",
    message=IndicatorBatch,
    version=1,
    delivery="live",
    producers=("indicators",),
    consumers=("gateway", "alerts"),
    ordering_key="symbol, source and interval",
    description="Indicator values of forming bars.",
)
INDICATORS = Topic(
    name="indicators",
    exchange="market.indicators",
    key="closed.{interval}.{shard}",
    convenience_key="indicator.{interval}.{symbol}",
    message=IndicatorBatch,
    version=1,
    delivery="durable",
    producers=("indicators",),
    consumers=("gateway", "alerts"),
    ordering_key="symbol, source and interval",
    description="Indicator values of closed bars, once per revision.",
)
SIGNALS = Topic(
    name="signals",
    exchange="market.indicators",
    key="signal.{kind}.{symbol}",
    message=Signal,
    version=1,
    delivery="durable",
    producers=("indicators",),
    consumers=("gateway", "alerts"),
    ordering_key="symbol, source and interval",
    description="Crosses, zones, squeezes, breakouts: pending live, confirmed or withdrawn at the close.",
)
INSTRUMENTS = Topic(
    name="instruments",
    exchange="market.catalogue",
    key="instrument.{venue}",
    message=InstrumentList,
    version=1,
    delivery="durable",
    mandatory=True,
    producers=("ingestor",),
    consumers=("indicators",),
    ordering_key="venue",
    description="Instruments of a venue, refreshed hourly and on change.",
)
COINS = Topic(
    name="coins",
    exchange="market.catalogue",
    key="coin.{id}",
    message=CoinList,
    version=1,
    delivery="durable",
    mandatory=True,
    producers=("ingestor",),
    consumers=("indicators",),
    ordering_key="coin",
    description="Coins with name, rank, market cap and image; the key names the first of the list.",
)
FEEDS = Topic(
    name="feeds",
    exchange="feed.status",
    key="status.{venue}",
    message=FeedStatus,
    version=1,
    delivery="live",
    producers=("ingestor",),
    consumers=("gateway", "indicators", "alerts"),
    ordering_key="venue",
    description="Connection states, gaps, budgets and history progress of a venue.",
)
ALERT_EVENTS = Topic(
    name="alert-events",
    exchange="alerts.events",
    key="alert.{user}.{rule}",
    message=AlertEvent,
    version=1,
    delivery="durable",
    producers=("alerts",),
    consumers=("gateway",),
    ordering_key="rule",
    description="What happened to a user's rule, from the outbox.",
)
PORTFOLIO_EVENTS = Topic(
    name="portfolio-events",
    exchange="portfolio.events",
    key="portfolio.{user}.{id}",
    message=PortfolioChanged,
    version=1,
    delivery="durable",
    producers=("portfolio",),
    consumers=("gateway", "alerts"),
    ordering_key="portfolio",
    description="Changes of a portfolio's books, from the outbox.",
)
PORTFOLIO_VALUES = Topic(
    name="portfolio-values",
    exchange="portfolio.events",
    key="values.{part}",
    message=PortfolioValueBatch,
    version=1,
    delivery="live",
    producers=("portfolio",),
    consumers=("gateway", "alerts"),
    ordering_key="portfolio",
    description="Live values of watched portfolios, at most one a second each, many in a message.",
)

TOPICS: Final[tuple[Topic, ...]] = (
    TICKS,
    PRICES,
    CANDLES,
    HISTORY,
    INDICATORS_LIVE,
    INDICATORS,
    SIGNALS,
    INSTRUMENTS,
    COINS,
    FEEDS,
    ALERT_EVENTS,
    PORTFOLIO_EVENTS,
    PORTFOLIO_VALUES,
)
TOPIC_BY_TYPE: Final[dict[str, Topic]] = {topic.type_name: topic for topic in TOPICS}


def key_part(text: str) -> str:
    """A free text (a user id) as one word of a routing key: dots, `*`, `#` and spaces are percent-encoded, 80 bytes at most."""
    safe = "".join(c if c.isalnum() or c in "-_" else "".join(f"%{b:02X}" for b in c.encode()) for c in text)
    return safe[:80]


@dataclass(frozen=True, slots=True)
class Queue:
    """A consumer's queue on a topic.

    Shared (`exclusive` false): durable, one per `shard` with single-active-consumer when sharded; its name is
    `<consumer>.<topic>.v<n>[.<shard>of<SHARDS>]`. Exclusive: server-named, gone with its connection, for consumers that
    each need everything (gateway replicas). `bindings` are routing keys.
    Delivery class `live`: classic, `max_length` messages, drop-head. `durable`: quorum, `delivery_limit`, dead letters to `<name>.dlq`.
    """

    consumer: str
    topic: Topic
    bindings: tuple[str, ...]
    shard: int | None = None
    shards: int = DEFAULT_SHARDS
    exclusive: bool = False
    max_length: int = 20_000
    max_bytes: int = 256 * 1024 * 1024
    delivery_limit: int = 5

    @property
    def name(self) -> str:
        """The queue's name on the broker; empty for an exclusive queue (the broker names it)."""
        if self.exclusive:
            return ""
        name = f"{self.consumer}.{self.topic.name}.v{self.topic.version}"
        return name if self.shard is None else f"{name}.{self.shard}of{self.shards}"

    @property
    def dead_letters(self) -> str:
        """The name of the queue for what could not be handled."""
        return f"{self.name}.dlq"
