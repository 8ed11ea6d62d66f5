"""What the use cases need from outside, named for the need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from cryptopulse.common.contracts.candles import Candle, CandleColumns
from cryptopulse.common.contracts.catalogue import Coin, Instrument
from cryptopulse.common.contracts.indicators import IndicatorUpdate, Signal
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.resolver import Catalogue
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.indicators.domain.points import Point, Scale


class Changed(msgspec.Struct, frozen=True):
    """A stored candle that an upsert made or changed, as it is stored now. `corrected`: it was there with other values."""

    candle: Candle
    corrected: bool


class CandleStore(Protocol):
    """Closed candles, the one truth. Upserts are idempotent and fenced by epoch; all raise `StoreUnavailable`."""

    async def upsert(self, candles: Sequence[Candle], *, origin: int, epoch: int) -> list[Changed]:
        """Store bars; a row gives way only to one at least as complete, of at least its origin and epoch.

        Answers what was made or changed; a row that says the same already is neither.
        """
        ...

    async def check(self, candles: Sequence[Candle], *, epoch: int) -> dict[int, bool]:
        """Compare a venue's own bars, ascending and of one series, with the complete ones that were built from its trades.

        Answers open time -> equal (prices, volume, and trades where the venue counts them) of those that were there.
        Equal ones are verified: they count as the venue's own from now on, so each is compared once.
        """
        ...

    async def range(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[Candle]:
        """Bars with from_ms <= open_time < to_ms, oldest first: the first `limit` with `from_ms`, else the newest."""
        ...

    async def sources(self, symbol: str) -> list[str]:
        """Sources that have stored bars of this symbol."""
        ...


class PlainCandle(msgspec.Struct, frozen=True, gc=False):
    """A candle as the API tells it, in this order: times in ms, decimals as plain text (`plain`)."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    taker_buy_volume: str
    closed: bool
    complete: bool
    revision: int
    simulated: bool


class HistoryStore(CandleStore, Protocol):
    """Closed candles as requests want them: no decimal is made where text goes out or integers are folded."""

    async def plain_range(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
    ) -> list[PlainCandle]:
        """The bars of `range`."""
        ...

    async def points(
        self,
        symbol: str,
        source: str,
        interval: Interval,
        *,
        from_ms: int | None,
        to_ms: int | None,
        limit: int,
        lead: int,
    ) -> tuple[Scale, list[Point], int]:
        """The bars of `range` as indicators read them, after up to `lead` bars before them: their scale, they, how many lead.

        The points equal those of `points_of`, but for more decimals in the scale where numbers end in zeros.
        """
        ...


class CandleSpans(Protocol):
    """Stored bars of many ranges at once. Raises `StoreUnavailable`."""

    async def spans(
        self, symbol: str, source: str, interval: Interval, spans: Sequence[tuple[int, int]]
    ) -> CandleColumns:
        """The bars of the spans [from, to), oldest first."""
        ...


class LatestStore(Protocol):
    """The latest values, for readers in other services. Raises `StoreUnavailable`."""

    async def write(
        self,
        prices: Sequence[PriceUpdate],
        forming: Sequence[Candle],
        values: Sequence[IndicatorUpdate],
        references: Sequence[ReferencePrice],
    ) -> None: ...
    async def write_scores(
        self, scores: Mapping[tuple[str, str, str], Mapping[str, float]], gone: Sequence[str]
    ) -> None: ...
    async def write_signals(self, signals: Sequence[Signal]) -> None: ...
    async def save_snapshot(self, shard: int, epoch: int, state: bytes) -> bool:
        """False when a higher epoch has written: this owner is no longer the owner."""
        ...

    async def load_snapshot(self, shard: int) -> bytes | None: ...
    async def save_series(self, shard: int, states: dict[str, bytes]) -> None: ...
    async def load_series(self, shard: int) -> dict[str, bytes]: ...


class MarketPublisher(Protocol):
    """The bus, as this service uses it. Durable ones return when confirmed; raise `BusUnavailable`."""

    async def prices(
        self, shard: int, epoch: int, prices: Sequence[PriceUpdate], forming: Sequence[Candle]
    ) -> None: ...
    async def candles(self, shard: int, epoch: int, candles: Sequence[Candle]) -> None: ...
    async def seconds(self, shard: int, epoch: int, candles: Sequence[Candle]) -> None:
        """Live candles of 1s, that only streams want."""
        ...

    async def live_values(self, shard: int, epoch: int, updates: Sequence[IndicatorUpdate]) -> None: ...
    async def closed_values(self, shard: int, epoch: int, updates: Sequence[IndicatorUpdate]) -> None: ...
    async def signals(self, signals: Sequence[Signal]) -> None: ...


class HistoryRequests(Protocol):
    """Asks for a range of venue candles; the answer comes as history messages."""

    async def ask(
        self, symbol: str, interval: Interval, from_ms: int, to_ms: int, *, venue: str | None, reason: str
    ) -> None: ...


class CatalogueStore(Protocol):
    """Instruments and coins in the database, and their projection for readers."""

    async def put_instruments(
        self, venue: str, instruments: Sequence[Instrument], *, complete: bool, simulated: bool, at_us: int
    ) -> None: ...
    async def put_coins(self, coins: Sequence[Coin], *, simulated: bool) -> None: ...
    async def project(self) -> Catalogue:
        """Read everything back and write the projection; answers it."""
        ...
