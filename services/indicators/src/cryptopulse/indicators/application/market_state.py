"""The state of one shard's market between two batches: all of it, so that a snapshot is one encoding of it."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.prices import ExcludedSource, PriceStatus
from cryptopulse.indicators.domain.candle_series import CandleSeries
from cryptopulse.indicators.domain.consolidated import Memory
from cryptopulse.indicators.domain.trade_ids import TradeIds

SNAPSHOT_VERSION = 1


class VenueState(msgspec.Struct, array_like=True):
    """One symbol on one venue. `low` and `high` are the extremes since the previous price update.

    `weight` is the volume in base of about the last hour (decaying), `weight_us` when it was last brought up to date.
    """

    symbol: str
    venue: str
    series: CandleSeries
    ids: TradeIds
    price: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    event_us: int = 0
    received_us: int = 0
    low: Decimal | None = None
    high: Decimal | None = None
    seq: int = 0
    weight: float = 0.0
    weight_us: int = 0
    simulated: bool = False
    status: PriceStatus = "ok"


class TargetState(msgspec.Struct, array_like=True):
    """One consolidated price: of a pair over its venues, or of an asset in USD over all its pairs."""

    symbol: str
    series: CandleSeries
    memory: Memory
    price: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    confidence: Decimal | None = None
    status: PriceStatus = "ok"
    used: list[str] = []
    excluded: list[ExcludedSource] = []
    event_us: int = 0
    received_us: int = 0
    evaluated_us: int = 0
    seq: int = 0
    simulated: bool = False
    since_ms: int = 0
    """The minute in which it was first priced: what venues tell of those before in their first answers is left to history."""
    spoiled: list[int] = []
    """Open times of the newest minutes in which trades could not be counted, as there was no price or rate."""


class MarketState(msgspec.Struct):
    """Everything that a shard's next owner needs besides stored candles. Keys of `venues` are `<symbol>|<venue>`."""

    version: int = SNAPSHOT_VERSION
    venues: dict[str, VenueState] = {}
    targets: dict[str, TargetState] = {}
    epochs: dict[str, int] = {}
    offsets: dict[str, int] = {}
    heard_us: dict[str, int] = {}
    now_us: int = 0
    unsaved: list[Candle] = []
    unpublished: list[Candle] = []
    unpublished_values: list[IndicatorUpdate] = []
    unpublished_signals: list[Signal] = []
    pending_signals: list[Signal] = []
    """Told as pending on bars that are still forming."""
    without_rate: dict[str, tuple[int, int]] = {}
    """`<X-USD>|<quote>|<interval>` -> first and last open time of stored bars that no rate was stored for yet."""
    unpublished_seconds: list[Candle] = []
    """Live candles of 1s; one is told once a snapshot holds it, so that no other owner tells it with other values."""
